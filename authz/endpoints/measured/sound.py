"""Bounds how long a file of sound lasts, by its bytes. Pure.

Only formats whose bytes bound the time are measured: PCM in WAV, and MP3. Other formats pack
silence into nearly nothing, so that a small file may last for hours.

What is measured must be what the provider plays, so a file must be of the kind that its name or
its `format` says: a decoder for another kind could find other sound in the same bytes.
"""

import struct
from typing import Final

from authz.decision import Reason, Refused, deny, echo

# Providers round up to some seconds, and bill short sounds as if they were longer: by 10, 15 or
# 60 seconds, as they document.
ROUNDED_SECONDS: Final = 60
# The least that an MP3 has for a second: 8 kbit/s, the lowest rate that its frames can name.
MP3_BYTES_PER_SECOND: Final = 1_000
LEAST_SAMPLE_RATE: Final = 8_000
MOST_SAMPLE_RATE: Final = 384_000
MOST_CHANNELS: Final = 8

# PCM, floating point, A-law, mu-law, each with the bits that its samples may have: decoders of the
# last two read a byte as a sample, whatever the header says.
_WAVE_CODECS: Final = {
    1: frozenset({8, 16, 24, 32, 64}),
    3: frozenset({32, 64}),
    6: frozenset({8}),
    7: frozenset({8}),
}
_WAVE_EXTENSIBLE: Final = 0xFFFE
# What stands behind the codec in an extensible header, if that is one of the codecs above.
CODEC_GUID: Final = bytes.fromhex("000000001000800000aa00389b71")
# Each is a step of a loop, and may be as short as eight bytes.
MAX_WAVE_CHUNKS: Final = 1_000
_SAMPLE_RATES: Final = (44_100, 48_000, 32_000)
_FREE_BITRATE: Final = 0
_BAD_BITRATE: Final = 15
_MP3_TAGS: Final = 4
# Behind the header, a checksum or none, and the side information of one or two channels.
_CLAIMS_AT: Final = (13, 15, 21, 23, 36, 38)

_KINDS: Final = {
    "wav": "wav",
    "wave": "wav",
    "mp3": "mp3",
    "mpga": "mp3",
    "mpeg": "mp3",
}
_MEDIA_TYPES: Final = {
    "wav": frozenset({"audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"}),
    "mp3": frozenset({"audio/mpeg", "audio/mp3", "audio/x-mpeg", "audio/x-mp3", "audio/mpga"}),
}
_ANY_MEDIA_TYPE: Final = frozenset({"", "application/octet-stream"})


class UnreadableSound(Exception):
    """A file is not what its name says; the message is the reason."""


def most_seconds(sound: bytes, named: str, param: str, media_type: str = "") -> int:
    """Return the most seconds that may be billed for a sound.

    `named` is its format, or the ending of its file's name, and `media_type` what its part of a
    form says. Raises Refused where the bytes bound no time, naming the parameter.
    """
    kind = _KINDS.get(named.lower())
    if kind is None:
        raise _refuse(
            f"The format '{echo(named)}' packs silence so tightly that its size does not bound how"
            " long the sound lasts. Send it as 'wav' (PCM) or 'mp3'.",
            param,
        )
    told = media_type.partition(";")[0].strip().lower()
    if told not in _ANY_MEDIA_TYPE and told not in _MEDIA_TYPES[kind]:
        message = f"The file is named '{echo(named)}' and sent as '{echo(told)}'. Make them agree."
        raise Refused(deny(Reason.INVALID_VALUE, message, param))
    try:
        seconds = seconds_of_wave(sound) if kind == "wav" else seconds_of_mp3(sound)
    except UnreadableSound as error:
        raise _refuse(f"The sound cannot be measured as '{echo(named)}': {error}", param) from None
    return seconds + ROUNDED_SECONDS


def _refuse(message: str, param: str) -> Refused:
    return Refused(deny(Reason.COST_UNBOUNDED, message, param))


def seconds_of_wave(sound: bytes) -> int:
    """Return the most seconds of a WAV file. Raises UnreadableSound."""
    if sound[:4] != b"RIFF" or sound[8:12] != b"WAVE":
        raise UnreadableSound("it has no RIFF header of a WAVE file.")
    bytes_per_second = 0
    at = 12
    for _ in range(MAX_WAVE_CHUNKS):
        if at + 8 > len(sound):
            break
        name, size = sound[at : at + 4], int.from_bytes(sound[at + 4 : at + 8], "little")
        start = at + 8
        if name == b"data":
            if not bytes_per_second:
                raise UnreadableSound("its samples come before their format.")
            if size > len(sound) - start:
                # A streaming writer leaves a placeholder there, and some readers believe it.
                raise UnreadableSound("its header names more samples than the file has.")
            # The whole file, and each channel apart, as some providers bill them.
            return -(-len(sound) // bytes_per_second)
        if name == b"fmt ":
            if bytes_per_second:
                raise UnreadableSound("it has two formats.")
            bytes_per_second = _bytes_per_second(sound[start : start + size])
        at = start + size + size % 2
    raise UnreadableSound(f"its first {MAX_WAVE_CHUNKS} chunks have no samples.")


def _bytes_per_second(chunk: bytes) -> int:
    """Return the bytes that the `fmt ` chunk gives one channel for a second."""
    if len(chunk) < 16:
        raise UnreadableSound("its format is cut short.")
    codec, channels, sample_rate, byte_rate, block_bytes, bits = struct.unpack_from(
        "<HHIIHH", chunk
    )
    if codec == _WAVE_EXTENSIBLE and chunk[26:40] == CODEC_GUID:
        codec = int.from_bytes(chunk[24:26], "little")
        # Some decoders take the bits that are in use for the size of a sample.
        if int.from_bytes(chunk[18:20], "little") not in (0, bits):
            raise UnreadableSound("its samples have unused bits.")
    if bits not in _WAVE_CODECS.get(codec, ()):
        raise UnreadableSound("its samples are compressed. Write them as PCM.")
    if not 1 <= channels <= MOST_CHANNELS or not (
        LEAST_SAMPLE_RATE <= sample_rate <= MOST_SAMPLE_RATE
    ):
        raise UnreadableSound(
            f"it must have 1 to {MOST_CHANNELS} channels and {LEAST_SAMPLE_RATE} to"
            f" {MOST_SAMPLE_RATE} samples a second."
        )
    if block_bytes != channels * bits // 8 or byte_rate != sample_rate * block_bytes:
        raise UnreadableSound("its header contradicts itself.")
    return int(sample_rate * bits // 8)


def seconds_of_mp3(sound: bytes) -> int:
    """Return the most seconds of an MP3 file. Raises UnreadableSound."""
    at = 0
    for _ in range(_MP3_TAGS):
        if sound[at : at + 3] != b"ID3" or len(sound) < at + 10:
            break
        size = 0
        for byte in sound[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        has_footer = sound[at + 5] & 0x10
        at += 10 + size + (10 if has_footer else 0)
    header = int.from_bytes(sound[at : at + 4], "big")
    version, layer = header >> 19 & 3, header >> 17 & 3
    bitrate, rate = header >> 12 & 15, header >> 10 & 3
    if len(sound) < at + 4 or header >> 21 != 0x7FF or version == 1 or layer != 1 or rate == 3:
        raise UnreadableSound("it does not begin with a frame of MPEG layer III.")
    if bitrate in (_FREE_BITRATE, _BAD_BITRATE):
        raise UnreadableSound("its frames name no bit rate.")
    is_mpeg1 = version == 3
    sample_rate = _SAMPLE_RATES[rate] // (1 if is_mpeg1 else 2 if version == 2 else 4)
    # Encoders write the number of frames into the first one, behind `Xing`, `Info` or `VBRI`, and
    # some readers believe it.
    frame, claimed = sound[at : at + 64], 0
    for place in _CLAIMS_AT:
        name, flags, count = (frame[place + one : place + one + 4] for one in (0, 4, 8))
        if name in (b"Xing", b"Info") and flags[-1:] and flags[-1] & 1:
            claimed = max(claimed, int.from_bytes(count, "big"))
    if frame[36:40] == b"VBRI":
        claimed = max(claimed, int.from_bytes(frame[50:54], "big"))
    samples = claimed * (1_152 if is_mpeg1 else 576)
    return max(-(-len(sound) // MP3_BYTES_PER_SECOND), -(-samples // sample_rate))

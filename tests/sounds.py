"""Sounds for tests: silence in WAV."""

import io
import wave


def wav(seconds: float, rate: int = 16_000, channels: int = 1, sample_bytes: int = 2) -> bytes:
    """Return a file of so many seconds."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(sample_bytes)
        writer.setframerate(rate)
        writer.writeframes(bytes(int(seconds * rate) * channels * sample_bytes))
    return file.getvalue()

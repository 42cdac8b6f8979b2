-- A bucket counts in slots of this server's clock. A minute is what the last 60 seconds brought, in
-- slots of half a second. The slot that it only partly covers counts whole, so no 60 seconds ever
-- hold more than what is counted here. A day and a month (UTC) are one slot each.
--
-- A key holds the sum, and then (slot, count) of every slot in use, oldest first: 121 at most.
-- Everything is read once and written once in a call, whatever the number of questions.
local SLOT_US = 500000
local SLOTS = 121
local DAY_US = 86400 * 1000000
local HEAD = 8
local ENTRY = 10

local pack, unpack, sub = struct.pack, struct.unpack, string.sub
local floor, min = math.floor, math.min

-- The first argument is empty, or microseconds that tests take for the time.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- The number of the month of a day, both since 1970; it is counted in years that begin in March.
local function month_of(day)
  local z = day + 719468
  local era = floor(z / 146097)
  local of_era = z - era * 146097
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524)
    - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  return (era * 400 + year - 1970) * 12 + floor((5 * of_year + 2) / 153) + 2
end

-- The windows by number. `slot` is the present slot, and the last one of `slots` that count. The one
-- slot of a day or a month ends at `ends_at`.
local windows = {[0] = {slot = floor(now / SLOT_US), slots = SLOTS}}

local function window_at(number)
  local window = windows[number]
  if not window then
    local day = floor(now / DAY_US)
    if number == 1 then
      window = {slot = day, slots = 1, ends_at = (day + 1) * DAY_US}
    else
      local month, next_day = month_of(day), day + 1
      while month_of(next_day) == month do next_day = next_day + 1 end
      window = {slot = month, slots = 1, ends_at = next_day * DAY_US}
    end
    windows[number] = window
  end
  return window
end

local function leaves_at(bucket, slot)
  return bucket.window.ends_at or (slot + SLOTS) * SLOT_US
end

local function read_bucket(key, window)
  local now_slot, last_gone = window.slot, window.slot - window.slots
  local packed = redis.call('GET', key)
  if not packed then
    return {key = key, window = window, total = 0, packed = '        ', at = HEAD + 1, stop = HEAD,
            slot = now_slot, count = 0}
  end
  local total = unpack('<d', packed)
  local at, stop = HEAD + 1, #packed - ENTRY
  local slot, count = unpack('<I5I5', packed, stop + 1)
  if slot > now_slot then
    -- The clock was set back: all counts as of now, so nothing is forgotten or kept for too long.
    at, slot, count = stop + 1, now_slot, total
  elseif slot <= last_gone then
    at, total, count = stop + 1, 0, 0
  else
    while at <= stop do
      local oldest, used = unpack('<I5I5', packed, at)
      if oldest > last_gone then break end
      total = total - used
      at = at + ENTRY
    end
  end
  return {key = key, window = window, total = total, packed = packed, at = at, stop = stop,
          slot = slot, count = count}
end

local buckets = {}

local function bucket_at(index, number)
  local bucket = buckets[index]
  if not bucket then
    bucket = read_bucket(KEYS[index], window_at(number))
    buckets[index] = bucket
  end
  return bucket
end

local function count(bucket, amount)
  local now_slot = bucket.window.slot
  if bucket.slot < now_slot then
    if bucket.count > 0 then
      bucket.packed = sub(bucket.packed, 1, bucket.stop) .. pack('<I5I5', bucket.slot, bucket.count)
      bucket.stop = bucket.stop + ENTRY
    end
    bucket.slot, bucket.count = now_slot, 0
  end
  bucket.count = bucket.count + amount
  bucket.total = bucket.total + amount
  bucket.is_changed = true
end

-- Takes out of the slot `from` and older ones: those leave the window no later.
local function give_back(bucket, amount, from)
  if bucket.slot <= from then
    local taken = min(amount, bucket.count)
    bucket.count, bucket.total = bucket.count - taken, bucket.total - taken
    amount = amount - taken
  end
  local at = bucket.stop - ENTRY + 1
  while amount > 0 and at >= bucket.at do
    local slot, used = unpack('<I5I5', bucket.packed, at)
    local taken = slot <= from and min(amount, used) or 0
    if taken > 0 then
      bucket.packed = sub(bucket.packed, 1, at - 1) .. pack('<I5I5', slot, used - taken)
        .. sub(bucket.packed, at + ENTRY)
      bucket.total = bucket.total - taken
      amount = amount - taken
    end
    at = at - ENTRY
  end
  bucket.is_changed = true
end

-- Microseconds until so much has left the window.
local function wait_for(bucket, amount)
  local at = bucket.at
  while at <= bucket.stop do
    local slot, used = unpack('<I5I5', bucket.packed, at)
    amount = amount - used
    if amount <= 0 then return leaves_at(bucket, slot) - now end
    at = at + ENTRY
  end
  return leaves_at(bucket, bucket.slot) - now
end

local function write_buckets()
  for _, bucket in pairs(buckets) do
    if bucket.is_changed then
      redis.call('SET', bucket.key, pack('<d', bucket.total)
        .. sub(bucket.packed, bucket.at, bucket.stop) .. pack('<I5I5', bucket.slot, bucket.count),
        'PX', floor((leaves_at(bucket, bucket.window.slot) - now) / 1000) + 500)
    end
  end
end

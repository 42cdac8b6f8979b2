-- Asks for many requests, each of several buckets: all of them have room for it, or it counts in
-- none. ARGV[2] holds, as doubles, for each request the number of its buckets, and for each of
-- those the index of its key, the limit, the amount, 1 in shadow mode, which refuses nothing, the
-- number of the window, and the count that the caller knows of: this server has lost what it counts
-- less, and takes it over. The last key says since when this server counts: another answer than before, and it has lost what
-- it had counted. Answers that, and then for each bucket of each request: what is left of its limit (below zero: it did not fit),
-- microseconds until it fits (-1: never), and microseconds until the whole limit is there again.
local born = redis.call('GET', KEYS[#KEYS])
if not born then
  born = string.format('%.0f', now)
  redis.call('SET', KEYS[#KEYS], born)
end
local questions = ARGV[2]
local answers, answered = {tonumber(born)}, 1
local asked, limits, amounts, spares = {}, {}, {}, {}
local at = 1
while at <= #questions do
  local size, index, is_shadow, number, known
  local is_refused = false
  size, at = unpack('<d', questions, at)
  for i = 1, size do
    index, limits[i], amounts[i], is_shadow, number, known, at = unpack('<dddddd', questions, at)
    local bucket = bucket_at(index, number)
    if known > bucket.total then count(bucket, known - bucket.total) end
    local spare = limits[i] - bucket.total - amounts[i]
    asked[i], spares[i] = bucket, spare
    if spare < 0 and is_shadow == 0 then is_refused = true end
  end
  for i = 1, size do
    local bucket, spare = asked[i], spares[i]
    local wait = 0
    if spare < 0 then wait = amounts[i] > limits[i] and -1 or wait_for(bucket, -spare) end
    if not is_refused then count(bucket, amounts[i]) end
    local reset = bucket.total > 0 and leaves_at(bucket, bucket.slot) - now or 0
    answers[answered + 1], answers[answered + 2], answers[answered + 3] = spare, wait, reset
    answered = answered + 3
  end
end
write_buckets()
return answers

-- Admits one request for each key under the limit of requests a minute beside it in ARGV.
-- A key holds the instant, in microseconds of this server's clock, at which its bucket is full
-- again. Answers per key: admitted (1 or 0), remaining, microseconds until one more is admitted,
-- microseconds until the bucket is full.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local period = 60000000
local answers = {}
for i, key in ipairs(KEYS) do
  local limit = tonumber(ARGV[i])
  local step = period / limit
  -- A clock that was set back must not leave a bucket empty for longer than a period.
  local full_at = math.min(tonumber(redis.call('GET', key) or 0), now + period)
  full_at = math.max(full_at, now)
  local next_full_at = full_at + step
  -- A hundredth of a request forgives the rounding of instants to whole microseconds.
  if next_full_at <= now + period + step / 100 then
    redis.call('SET', key, string.format('%.0f', next_full_at), 'PX',
               math.ceil((next_full_at - now) / 1000) + 1)
    local remaining = math.floor((now + period - next_full_at) / step + 0.01)
    answers[#answers + 1] = {1, remaining, 0, math.ceil(next_full_at - now)}
  else
    answers[#answers + 1] = {0, 0, math.ceil(next_full_at - now - period), math.ceil(full_at - now)}
  end
end
return answers

-- Counts whatever the limit, because it has happened. ARGV[2] holds, as doubles, for each addition
-- the index of its key, the amount, how many microseconds ago it was counted what an amount below
-- zero gives back (in a minute only), and the number of the window.
local additions = ARGV[2]
local at = 1
while at <= #additions do
  local index, amount, age, number
  index, amount, age, number, at = unpack('<dddd', additions, at)
  local bucket = bucket_at(index, number)
  if amount >= 0 then
    count(bucket, amount)
  else
    local from = floor((now - age) / SLOT_US)
    if from > bucket.window.slot - SLOTS then give_back(bucket, -amount, from) end
  end
end
write_buckets()
return {}

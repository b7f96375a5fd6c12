-- Appends market data, if Redis still holds what it continues: all of it, or nothing.
-- KEYS: position, alive. ARGV: the position that this continues ("" for none), the position after
-- it, milliseconds until `alive` expires, hashes and entries (MessagePack, see engine.feed).
-- Gives {"moved", position found}, or {"done", entries added, there before, refused, refusals...}.
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then
  return {'moved', found}
end
local hashes, entries = cmsgpack.unpack(ARGV[4]), cmsgpack.unpack(ARGV[5])
redis.call('SET', KEYS[1], ARGV[2]) -- refused when memory is full: then nothing has been written

-- From here on nothing may raise: what was written would stay, and what comes after be lost.
local added, repeated, refused, refusals = 0, 0, 0, {}
local function tried(key, ...)
  local result = redis.pcall(...)
  if type(result) ~= 'table' or not result.err then
    return true
  end
  if string.find(result.err, 'equal or smaller', 1, true) then
    repeated = repeated + 1
  else
    refused = refused + 1
    if refused <= 10 then
      refusals[refused] = key .. ': ' .. result.err
    end
  end
  return false
end

tried(KEYS[2], 'SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
for _, hash in ipairs(hashes) do
  for at = 2, #hash, 2 do
    tried(hash[1], 'HSET', hash[1], hash[at], hash[at + 1])
  end
end
for _, entry in ipairs(entries) do
  local key, id, kept, now_key, fields = unpack(entry)
  if tried(key, 'XADD', key, 'MAXLEN', '~', kept, id, unpack(fields)) then
    added = added + 1
  end
  if now_key ~= '' then
    tried(now_key, 'HSET', now_key, 'id', id, unpack(fields))
  end
end
return {'done', added, repeated, refused, unpack(refusals)}

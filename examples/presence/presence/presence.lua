#!lua flags=allow-oom
-- Presence in Redis: every change of it, each one atomic. At `maxmemory` too: a change takes
-- little, and no user is offline because Redis is full.
--
-- Called as (prefix, operation, gateway, epoch, arguments ...). The times are in
-- milliseconds, and the only clock is that of Redis. Where that was set back, an end that
-- is further away than its whole time is moved up. All keys begin with the prefix:
--
--   lease:GATEWAY    its epoch; the key's TTL is the lease
--   gateways         the gateways that may have entries -> their names
--   entries:GATEWAY  its connections -> their users
--   users            each user who has an entry -> the number of entries
--   leaving          the users without an entry, by the end of their grace period
--   why              those users -> how their last connection ended
--   events           the announcements, a stream
--   store            a number that is lost with the data
--   settling         there while a store is new
--   joining          the users to announce as joined when it isn't any more
--
-- A store that is new may have lost its data, and with them the users announced before. For
-- a lease it announces no user; meanwhile the gateways tell their entries.
--
-- The error FENCED: the lease isn't this gateway's any more, or not in this epoch.

local prefix, operation, gateway, epoch = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local call = redis.call

-- The most users that one script announces. Redis serves others in between.
local MOST = 1000

local function key(name) return prefix .. name end

local function fenced() return redis.error_reply('FENCED by epoch or time') end

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local settling = call('EXISTS', key('settling')) == 1

local function announce(kind, who, why)
  call('XADD', key('events'), 'MAXLEN', '~', 10000, '*', 'kind', kind, 'who', who, 'why', why)
end

local function is_quiet()
  return (settling or call('EXISTS', key('joining')) == 1) and 1 or 0
end

local function announce_left(user, why)
  if call('SREM', key('joining'), user) == 1 then announce('joined', user, '') end
  announce('left', user, why)
end

-- An entry of the user's is gone.
local function lose(user, grace, why)
  if call('HINCRBY', key('users'), user, -1) > 0 then return end
  call('HDEL', key('users'), user)
  if tonumber(grace) == 0 and not settling then return announce_left(user, why) end
  call('ZADD', key('leaving'), now + grace, user)
  call('HSET', key('why'), user, why)
end

-- Removes all entries of a gateway. Returns how many there were.
local function clear(which, grace, why)
  local users = call('HVALS', key('entries:' .. which))
  call('DEL', key('entries:' .. which))
  for _, user in ipairs(users) do lose(user, grace, why) end
  return #users
end

-- How long the users of a gateway may be without an entry while it tells them again.
local function patience(ttl, grace) return math.max(grace, math.ceil(ttl / 3)) end

-- What is left of a key's time, at most `ttl`; negative if the key is gone.
local function remaining(name, ttl)
  local left = call('PTTL', key(name))
  if left <= tonumber(ttl) then return left end
  call('PEXPIRE', key(name), ttl)
  return tonumber(ttl)
end

-- Announces whatever has ended. Returns in how many milliseconds there is more to do.
local function sweep(ttl, grace)
  local due
  local function at(time) due = math.min(due or time, time) end
  for _, which in ipairs(call('HKEYS', key('gateways'))) do
    local left = remaining('lease:' .. which, ttl)
    if left >= 0 then
      at(left + 1)
    else
      local name = call('HGET', key('gateways'), which)
      call('HDEL', key('gateways'), which)
      local lost = clear(which, grace, 'lost with gateway ' .. name)
      announce('gateway-lost', name, 'its lease ended, with ' .. lost .. ' entries')
    end
  end
  if settling then
    at(remaining('settling', ttl) + 1)
    return due
  end
  for _, user in ipairs(call('SPOP', key('joining'), MOST)) do announce('joined', user, '') end
  local over = call('ZRANGE', key('leaving'), '-inf', now, 'BYSCORE', 'LIMIT', 0, MOST)
  for _, user in ipairs(over) do
    announce_left(user, call('HGET', key('why'), user) or '')
    call('ZREM', key('leaving'), user)
    call('HDEL', key('why'), user)
  end
  if is_quiet() == 1 then at(0) end
  local latest = now + patience(ttl, grace)
  local late = call('ZRANGE', key('leaving'), '(' .. latest, '+inf', 'BYSCORE', 'LIMIT', 0, MOST)
  for _, user in ipairs(late) do call('ZADD', key('leaving'), latest, user) end
  local first = call('ZRANGE', key('leaving'), 0, 0, 'WITHSCORES')
  if first[2] then at(math.max(first[2] - now, 0)) end
  return due or -1
end

local operations = {}

-- Takes the lease in a new epoch. `number` becomes that of a store which has none. Replies
-- with the store's, and whether somebody isn't announced yet because it is new.
function operations.register(ttl, grace, name, number)
  local held = call('GET', key('lease:' .. gateway))
  if held and tonumber(held) >= tonumber(epoch) then return fenced() end
  if call('SET', key('store'), number, 'NX') then
    call('SET', key('settling'), '', 'PX', ttl)
    settling = true
    announce('store-empty', '', '')
  end
  clear(gateway, patience(ttl, grace), 'gone while gateway ' .. name .. ' was away')
  call('SET', key('lease:' .. gateway), epoch, 'PX', ttl)
  call('HSET', key('gateways'), gateway, name)
  announce('gateway-up', name, 'epoch ' .. epoch)
  return { call('GET', key('store')), is_quiet() }
end

-- Keeps the lease. Replies with the number of its entries, when there is more to do, and
-- whether somebody isn't announced yet because the store is new.
function operations.refresh(ttl, grace)
  call('PEXPIRE', key('lease:' .. gateway), ttl)
  local due = sweep(ttl, grace)
  return { call('HLEN', key('entries:' .. gateway)), due, is_quiet() }
end

-- `again`: the user has been announced, by a store that has lost it. A user that isn't told
-- while the store settles is taken for gone, and joins.
function operations.enter(connection, user, again)
  if call('HSETNX', key('entries:' .. gateway), connection, user) == 0 then return 1 end
  local entries = call('HINCRBY', key('users'), user, 1)
  local is_back = call('ZREM', key('leaving'), user) == 1
  if is_back then call('HDEL', key('why'), user) end
  if settling and again == '1' then
    call('SREM', key('joining'), user)
  elseif entries == 1 and not is_back then
    if settling then call('SADD', key('joining'), user) else announce('joined', user, '') end
  end
  return 1
end

function operations.leave(connection, grace, why)
  local user = call('HGET', key('entries:' .. gateway), connection)
  if user then
    call('HDEL', key('entries:' .. gateway), connection)
    lose(user, grace, why)
  end
  return 1
end

-- Gives the lease up. Its users have the grace period to appear elsewhere.
function operations.close(grace, name)
  local left = clear(gateway, grace, 'gateway ' .. name .. ' closed')
  call('DEL', key('lease:' .. gateway))
  call('HDEL', key('gateways'), gateway)
  announce('gateway-closed', name, left .. ' entries')
  return 1
end

-- The users of each gateway, at one instant: the store's number, the last announcement's id,
-- the gateways with what is left of their leases and their entries, and the users who have a
-- grace period.
function operations.roster()
  local gateways = {}
  for _, which in ipairs(call('HKEYS', key('gateways'))) do
    gateways[#gateways + 1] = {
      call('HGET', key('gateways'), which),
      call('PTTL', key('lease:' .. which)),
      call('HVALS', key('entries:' .. which)),
    }
  end
  local last = call('XREVRANGE', key('events'), '+', '-', 'COUNT', 1)[1]
  local id = last and last[1] or '0-0'
  return { call('GET', key('store')), id, gateways, call('ZRANGE', key('leaving'), 0, -1) }
end

-- Ghosts: entries that are counted and that no gateway has. There can be none.
function operations.ghosts()
  local ghosts = 0
  for _, entries in ipairs(call('HVALS', key('users'))) do ghosts = ghosts + entries end
  for _, which in ipairs(call('HKEYS', key('gateways'))) do
    ghosts = ghosts - call('HLEN', key('entries:' .. which))
  end
  return ghosts
end

local needs_lease = { refresh = true, enter = true, leave = true, close = true }
if needs_lease[operation] and call('GET', key('lease:' .. gateway)) ~= epoch then
  return fenced()
end
return operations[operation](unpack(ARGV, 4))

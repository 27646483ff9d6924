-- Presence in Redis: every change of it, each one atomic.
--
-- Called as (prefix, operation, gateway, epoch, arguments ...). The times are in
-- milliseconds, and the only clock is that of Redis. All keys begin with the prefix:
--
--   lease:GATEWAY    its epoch; the key's TTL is the lease
--   gateways         the gateways that may have entries -> their names
--   entries:GATEWAY  its connections -> their users
--   users            each user who is present -> the number of entries
--   leaving          the users without an entry, by the end of their grace period
--   why              those users -> how their last connection ended
--   events           the announcements, a stream
--   store            a number that is lost with the data
--   settling         there while gateways tell their entries to an empty store
--
-- The error FENCED: the lease isn't this gateway's any more, or not in this epoch.

local prefix, operation, gateway, epoch = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local call = redis.call

local function key(name) return prefix .. name end

local function fenced() return redis.error_reply('FENCED by epoch or time') end

local function now()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function announce(kind, who, why)
  call('XADD', key('events'), 'MAXLEN', '~', 10000, '*', 'kind', kind, 'who', who, 'why', why)
end

-- When a grace period that begins now is over; nil if there is none.
local function deadline(grace)
  -- Another gateway may have the user, and hasn't told this store yet.
  grace = math.max(tonumber(grace), call('PTTL', key('settling')))
  return grace > 0 and now() + grace or nil
end

-- An entry of the user's is gone.
local function lose(user, deadline, why)
  if call('HINCRBY', key('users'), user, -1) > 0 then return end
  call('HDEL', key('users'), user)
  if not deadline then return announce('left', user, why) end
  call('ZADD', key('leaving'), deadline, user)
  call('HSET', key('why'), user, why)
end

-- Removes all entries of a gateway. Returns how many there were.
local function clear(which, grace, why)
  local users = call('HVALS', key('entries:' .. which))
  call('DEL', key('entries:' .. which))
  local deadline = deadline(grace)
  for _, user in ipairs(users) do lose(user, deadline, why) end
  return #users
end

-- Announces whose time is over. Returns in how many milliseconds there is more to do.
local function sweep(grace)
  local due
  local function at(time) due = math.min(due or time, time) end
  for _, which in ipairs(call('HKEYS', key('gateways'))) do
    local left = call('PTTL', key('lease:' .. which))
    if left >= 0 then
      at(left + 1)
    else
      local name = call('HGET', key('gateways'), which)
      call('HDEL', key('gateways'), which)
      local lost = clear(which, grace, 'lost with gateway ' .. name)
      announce('gateway lost', name, 'its lease ended, with ' .. lost .. ' entries')
    end
  end
  local time = now()
  for _, user in ipairs(call('ZRANGE', key('leaving'), '-inf', time, 'BYSCORE')) do
    announce('left', user, call('HGET', key('why'), user))
    call('ZREM', key('leaving'), user)
    call('HDEL', key('why'), user)
  end
  local first = call('ZRANGE', key('leaving'), 0, 0, 'WITHSCORES')
  if first[2] then at(first[2] - time) end
  return math.floor(due or -1)
end

local operations = {}

-- Takes the lease in a new epoch. `known` is the number of the store that the gateway had
-- before, or empty; `number` becomes this one's if it has none. Replies with it.
function operations.register(ttl, grace, name, known, number)
  local held = call('GET', key('lease:' .. gateway))
  if held and tonumber(held) >= tonumber(epoch) then return fenced() end
  if call('SET', key('store'), number, 'NX') then announce('store empty', '', '') end
  local store = call('GET', key('store'))
  if known ~= '' and known ~= store then call('SET', key('settling'), '', 'PX', ttl) end
  clear(gateway, grace, 'gone while gateway ' .. name .. ' was away')
  call('SET', key('lease:' .. gateway), epoch, 'PX', ttl)
  call('HSET', key('gateways'), gateway, name)
  announce('gateway up', name, 'epoch ' .. epoch)
  return store
end

-- Keeps the lease. Replies with the number of its entries, and when there is more to do.
function operations.refresh(ttl, grace)
  call('PEXPIRE', key('lease:' .. gateway), ttl)
  return { call('HLEN', key('entries:' .. gateway)), sweep(grace) }
end

-- `again`: the user has been announced, by a store that has lost it.
function operations.enter(connection, user, again)
  if call('HSETNX', key('entries:' .. gateway), connection, user) == 0 then return 1 end
  local entries = call('HINCRBY', key('users'), user, 1)
  local is_back = call('ZREM', key('leaving'), user) == 1
  if is_back then call('HDEL', key('why'), user) end
  if entries == 1 and not is_back and again == '0' then announce('joined', user, '') end
  return 1
end

function operations.leave(connection, grace, why)
  local user = call('HGET', key('entries:' .. gateway), connection)
  if user then
    call('HDEL', key('entries:' .. gateway), connection)
    lose(user, deadline(grace), why)
  end
  return 1
end

-- Gives the lease up. Its users have the grace period to appear elsewhere.
function operations.close(grace, name)
  local left = clear(gateway, grace, 'gateway ' .. name .. ' closed')
  call('DEL', key('lease:' .. gateway))
  call('HDEL', key('gateways'), gateway)
  announce('gateway closed', name, left .. ' entries')
  return 1
end

-- Who is where, at one instant: the last announcement's id, the gateways with what is left
-- of their leases and their entries, and who has a grace period.
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
  return { last and last[1] or '0-0', gateways, call('ZRANGE', key('leaving'), 0, -1) }
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

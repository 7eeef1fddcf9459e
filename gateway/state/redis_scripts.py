"""Limits in Redis: what its scripts do, each atomically and by Redis' own clock.

======================  =========================================================================================
``PREFIX:rate:METER``   hash: what was used in each part of the window; ``s`` their sum, ``o`` the oldest part
``PREFIX:gauge:METER``  number in use
``PREFIX:purse:METER``  hash of one period: ``s`` spent, ``r`` reserved, in nano-dollars
``PREFIX:lease:NAME``   hash: the gauges and purses that each running request of process NAME holds, as JSON
``PREFIX:alive``        sorted set: process → when it was last heard of, in milliseconds
======================  =========================================================================================

A lease that is there was not settled, so settling twice, or after it was taken from a dead process, does nothing.
"""

from __future__ import annotations

from gateway.state.meters import SLOTS

_COMMON = f"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Used within the window, what is out of it forgotten.
local function sum(key, part)
    local known = redis.call('HMGET', key, 's', 'o')
    if not known[1] then return 0 end
    local first = part - {SLOTS}
    if tonumber(known[2]) >= first then return tonumber(known[1]) end
    local all, total, oldest = redis.call('HGETALL', key), 0, part
    for i = 1, #all, 2 do
        local each = tonumber(all[i])
        if each and each < first then
            redis.call('HDEL', key, all[i])
        elseif each then
            total = total + all[i + 1]
            if each < oldest then oldest = each end
        end
    end
    redis.call('HSET', key, 's', total, 'o', oldest)
    return total
end

local function add(key, part, amount, width)
    redis.call('HSETNX', key, 'o', part)
    redis.call('HINCRBY', key, part, amount)
    redis.call('HINCRBY', key, 's', amount)
    redis.call('PEXPIRE', key, width * {SLOTS + 2})
end
"""

RESERVE = (
    _COMMON
    + f"""
-- KEYS: meters, lease. ARGV: ticket, what its lease holds, then for each meter kind, limit, amount, and
-- milliseconds: a part of the window's, or of the period's end.
-- Returns: place refused (0: none, -1: the purse at the next place is not known), milliseconds to wait, now, used.
local count, refused, wait = #KEYS - 1, 0, 0
local reply = {{0, 0, now}}
for i = 1, count do
    local at, key = 4 * i - 1, KEYS[i]
    local kind, limit, amount, width = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local used
    if kind == 'rate' then
        used = sum(key, math.floor(now / width))
    elseif kind == 'gauge' then
        used = tonumber(redis.call('GET', key) or '0')
    else
        local known = redis.call('HMGET', key, 's', 'r')
        if not known[1] then return {{-1, i, now}} end
        used = known[1] + known[2]
    end
    reply[3 + i] = used
    if refused == 0 and amount > 0 and used + amount > limit then
        refused = i
        if kind == 'rate' then
            local excess, parts, all = used + amount - limit, {{}}, redis.call('HGETALL', key)
            for j = 1, #all, 2 do
                if tonumber(all[j]) then table.insert(parts, {{tonumber(all[j]), tonumber(all[j + 1])}}) end
            end
            table.sort(parts, function(one, other) return one[1] < other[1] end)
            for _, part in ipairs(parts) do
                excess = excess - part[2]
                if excess <= 0 then wait = (part[1] + {SLOTS + 1}) * width - now; break end
            end
        end
    end
end
reply[1], reply[2] = refused, wait
if refused > 0 then return reply end
for i = 1, count do
    local at, key = 4 * i - 1, KEYS[i]
    local kind, amount, width = ARGV[at], ARGV[at + 2], tonumber(ARGV[at + 3])
    if kind == 'rate' then
        if amount ~= '0' then add(key, math.floor(now / width), amount, width) end
    elseif kind == 'gauge' then
        redis.call('INCRBY', key, amount)
    else
        redis.call('HINCRBY', key, 'r', amount)
        if width > 0 then redis.call('PEXPIREAT', key, width) end
    end
    reply[3 + i] = reply[3 + i] + amount
end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[#KEYS], ARGV[1], ARGV[2]) end
return reply
"""
)

SETTLE = (
    _COMMON
    + """
-- KEYS: meters, lease. ARGV: ticket (empty: it holds no lease), then for each meter kind, reserved, used, milliseconds
-- of a part of the window, and when it was reserved.
if ARGV[1] ~= '' and redis.call('HDEL', KEYS[#KEYS], ARGV[1]) == 0 then return 0 end
for i = 1, #KEYS - 1 do
    local at, key = 5 * i - 3, KEYS[i]
    local kind, reserved, used = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    if kind == 'rate' then
        local width, change = tonumber(ARGV[at + 3]), used - reserved
        local part = math.floor(tonumber(ARGV[at + 4]) / width)
        if change > 0 then
            sum(key, math.floor(now / width))
            add(key, math.floor(now / width), change, width)
        elseif change < 0 and redis.call('HEXISTS', key, part) == 1 then
            redis.call('HINCRBY', key, part, change)
            redis.call('HINCRBY', key, 's', change)
        end
    elseif kind == 'gauge' then
        redis.call('DECRBY', key, reserved)
    elseif redis.call('EXISTS', key) == 1 then
        redis.call('HINCRBY', key, 'r', -reserved)
        redis.call('HINCRBY', key, 's', used)
    end
end
return 1
"""
)

CHARGE = (
    _COMMON
    + """
-- What was used while Redis was away. KEYS: meters. ARGV: for each kind, amount, milliseconds of a part of the window.
for i, key in ipairs(KEYS) do
    local kind, amount, width = ARGV[3 * i - 2], ARGV[3 * i - 1], tonumber(ARGV[3 * i])
    if kind == 'rate' then
        sum(key, math.floor(now / width))
        add(key, math.floor(now / width), amount, width)
    elseif redis.call('EXISTS', key) == 1 then
        redis.call('HINCRBY', key, 's', amount)
    end
end
"""
)

SEED = """
-- KEYS: purse. ARGV: spent, end of the period in milliseconds, 0 if there is none.
if redis.call('HSETNX', KEYS[1], 's', ARGV[1]) == 1 then
    redis.call('HSET', KEYS[1], 'r', 0)
    if ARGV[2] ~= '0' then redis.call('PEXPIREAT', KEYS[1], ARGV[2]) end
end
"""

BEAT = (
    _COMMON
    + """
-- KEYS: alive. ARGV: process, milliseconds after which one is dead. Returns how many live, then the dead.
redis.call('ZADD', KEYS[1], now, ARGV[1])
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
return {redis.call('ZCARD', KEYS[1]) - #dead, unpack(dead)}
"""
)

REAP = (
    _COMMON
    + """
-- KEYS: alive, lease. ARGV: process, milliseconds as for BEAT. Gives back the gauges of a dead process; of its money
-- nobody knows whether it was spent, so it is.
local heard = redis.call('ZSCORE', KEYS[1], ARGV[1])
if heard and tonumber(heard) > now - ARGV[2] then return 0 end
local leases = redis.call('HGETALL', KEYS[2])
for i = 2, #leases, 2 do
    for _, held in ipairs(cjson.decode(leases[i])) do
        local kind, key, amount = held[1], held[2], held[3]
        if kind == 'gauge' then
            redis.call('DECRBY', key, amount)
        elseif redis.call('EXISTS', key) == 1 then
            redis.call('HINCRBY', key, 'r', -amount)
            redis.call('HINCRBY', key, 's', amount)
        end
    end
end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[1], ARGV[1])
return #leases / 2
"""
)

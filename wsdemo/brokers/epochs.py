"""What a broker that keeps events has to know to tell that Redis has lost some.

A game's events have numbers, and an epoch that tells them from those before a loss of all data.
An epoch ends, too, when Redis is started again, for it may have come back without the last events.
Numbers go on from where it ended, which is kept: a position before that still holds. A server that
knows of a later number has relayed what is lost; then a number is left out, by which whoever comes
back can tell.

A Redis that does not say which run of it this is (INFO) begins a new epoch only without any data.
If every server that knew ends together with Redis, nobody knows.
"""

__all__ = ["EPOCHS"]

# KEYS[1]: what is known of the game's events; what more there is of the game is in KEYS[2] and [3].
# ARGV[1]: an epoch, in case that one begins. ARGV[2]: for how many ms a game is kept.
EPOCHS = """
local about = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'run', 'ended', 'lost', 'lost_of')
local epoch, seq, lost = about[1], tonumber(about[2] or 0), tonumber(about[5] or 0)
local ended, lost_of = about[4] or '', about[6]
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or string.rep('0', 40)

local function begin()
  if epoch then ended = string.sub(string.format(';%s %d', epoch, seq) .. ended, 1, 1000) end
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'seq', seq, 'run', run, 'ended', ended)
end

if epoch and run ~= about[3] then begin() end

-- After which number to go on from a position, and whether it holds: whether nothing of what Redis
-- had before it is lost.
local function go_on(position_epoch, number, is_of_a_server)
  if position_epoch == epoch then return math.min(number, seq), number <= seq end
  local _, at = string.find(ended, ';' .. position_epoch .. ' ', 1, true)
  local last = at and tonumber(string.match(ended, '^%d+', at + 1))
  local is_lost = last and number > last or not last and ended ~= ''  -- or with all of its epoch
  if is_lost and is_of_a_server and lost_of ~= position_epoch then
    seq = math.max(seq + 1, number)
    lost, lost_of = seq, position_epoch
    redis.call('HSET', KEYS[1], 'seq', seq, 'lost', lost, 'lost_of', lost_of)
  end
  if not last then return 0, false end
  return math.min(number, last), number <= last
end

-- All of a game expires in one moment: half of it would be taken for the whole. Each use puts that
-- off, and need not write for it.
local function keep()
  local is_due = false
  for n = 1, 3 do
    local left = redis.call('PTTL', KEYS[n])
    is_due = is_due or left ~= -2 and left < 0.9 * tonumber(ARGV[2])
  end
  for n = 1, is_due and 3 or 0 do redis.call('PEXPIRE', KEYS[n], ARGV[2]) end
end
"""

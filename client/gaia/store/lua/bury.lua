-- Make a dead letter.
-- ARGV  1 id, or "" for one of its own   then pairs of a field and its value
local letter = {}
for i = 2, #ARGV, 2 do
  letter[ARGV[i]] = ARGV[i + 1]
end
bury(ARGV[1], letter)

-- The server's half of lssvwm's recorder: commands come in a file of the world's folder, `command`, which it removes, as
-- `<number> <verb> <words>`. A verb that asks is answered in the file `reply`, `look` in the picture, by the client's half.

dofile(core.get_modpath("lssvwm_server") .. "/still.lua")

local FOLDER = core.get_worldpath()
local WIDE, USUAL = 125, 0 -- fields of view: the server sends what is in it; 0 is the settings' own
local FPS, LOADING_FPS = core.settings:get("fps_max"), "10"

local player
local slow = false

-- While what is around is loaded few pictures are drawn: they are of no use, and take the time of what loads.
local function draw_slowly(wanted)
    if wanted ~= slow then
        slow = wanted
        for _, name in ipairs({ "fps_max", "fps_max_unfocused" }) do
            core.settings:set(name, slow and LOADING_FPS or FPS)
        end
    end
end

local function write(name, text)
    local file = assert(io.open(FOLDER .. "/" .. name .. ".new", "wb"))
    file:write(text)
    file:close()
    assert(os.rename(FOLDER .. "/" .. name .. ".new", FOLDER .. "/" .. name))
end

-- What a body meets in a node: 0 nothing, 1 a full block, 2 water, 3 a low plate, 4 harm.
local function kind_of(id)
    local name = core.get_name_from_content_id(id)
    local node = core.registered_nodes[name]
    if name == "ignore" or not node then
        return 1
    elseif (node.damage_per_second or 0) > 0 or core.get_item_group(name, "igniter") > 0 then
        return 4
    elseif node.liquidtype and node.liquidtype ~= "none" then
        return 2
    elseif not node.walkable then
        return 0
    elseif name == "default:snow" then
        return 3
    end
    return 1
end

local verbs = {}

-- Heights where a player could stand on a square grid, and the biome there: `x z height biome` a line; height -1: none.
function verbs.survey(number, x, z, count, spacing)
    local lines = {}
    for i = 0, count - 1 do
        for j = 0, count - 1 do
            local px, pz = x + i * spacing, z + j * spacing
            local height = core.get_spawn_level(px, pz)
            local biome = core.get_biome_name(core.get_biome_data({ x = px, y = height or 8, z = pz }).biome)
            lines[#lines + 1] = ("%d %d %d %s"):format(px, pz, height or -1, biome)
        end
    end
    write("reply", number .. "\n" .. table.concat(lines, "\n"))
end

-- Generate a box.
function verbs.generate(number, x1, y1, z1, x2, y2, z2)
    core.emerge_area({ x = x1, y = y1, z = z1 }, { x = x2, y = y2, z = z2 }, function(_, _, remaining)
        if remaining == 0 then
            write("reply", number .. "\n")
        end
    end)
end

-- The kinds of a box's nodes, a byte each, x fastest, then y, then z.
function verbs.dump(number, x1, y1, z1, x2, y2, z2)
    local low, high = { x = x1, y = y1, z = z1 }, { x = x2, y = y2, z = z2 }
    local voxels = VoxelManip(low, high)
    local from, to = voxels:get_emerged_area()
    local area = VoxelArea:new({ MinEdge = from, MaxEdge = to })
    local ids, kinds, rows = voxels:get_data(), {}, {}
    for z = z1, z2 do
        for y = y1, y2 do
            local row = {}
            for index in area:iter(x1, y, z, x2, y, z) do
                local id = ids[index]
                kinds[id] = kinds[id] or string.char(kind_of(id))
                row[#row + 1] = kinds[id]
            end
            rows[#rows + 1] = table.concat(row)
        end
    end
    write("reply", number .. "\n" .. table.concat(rows))
end

-- Put the eyes somewhere; angles in radians, pitch downwards. `wide` opens the view for the loading of what is around.
function verbs.look(_, x, y, z, pitch, yaw, wide)
    draw_slowly(wide == 1)
    player:set_fov(wide == 1 and WIDE or USUAL)
    player:set_pos({ x = x, y = y - player:get_properties().eye_height, z = z })
    player:set_look_vertical(pitch)
    player:set_look_horizontal(yaw)
end

core.register_on_joinplayer(function(joined)
    player = joined
    still_player(player)
    write("reply", "joined\n")
end)

core.register_globalstep(function()
    local file = player and io.open(FOLDER .. "/command", "rb")
    if not file then
        return
    end
    local text = file:read("*a")
    file:close()
    os.remove(FOLDER .. "/command") -- which tells that it was taken
    local words = text:split(" ")
    local number, verb = tonumber(words[1]), words[2]
    local values = {}
    for index = 3, #words do
        values[#values + 1] = tonumber(words[index])
    end
    verbs[verb](number, unpack(values))
end)

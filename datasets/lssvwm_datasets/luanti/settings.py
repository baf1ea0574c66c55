"""How the game is set: nothing moves, nothing is drawn over the world, everything in view is sent."""

import math
from typing import Any

FIELD_OF_VIEW = 70.0  # degrees, up and down as across: Minecraft's
MARGIN = 8  # rows of the window above the picture, and below it, where the squares are
FPS_MAX = 120  # pictures a second


def settings(seed: int, pixels: int, view: int) -> str:
    """The game's settings: nothing moves, nothing is drawn over the world, everything in view is sent."""
    chosen: dict[str, Any] = {
        "screen_w": pixels,
        "screen_h": pixels + 2 * MARGIN,
        "autosave_screensize": False,
        "fps_max": FPS_MAX,
        "fps_max_unfocused": FPS_MAX,
        "fov": round(_asked_field_of_view(pixels), 3),
        "viewing_range": view,
        "max_block_send_distance": math.ceil(view / 16) + 2,
        "block_send_optimize_distance": math.ceil(view / 16) + 2,
        "max_simultaneous_block_sends_per_client": 10_000,
        "full_block_send_enable_min_time_from_building": 0,
        "server_side_occlusion_culling": False,
        "client_mapblock_limit": -1,
        "client_unload_unused_data_timeout": 10**6,
        "server_unload_unused_data_timeout": 10**6,
        "max_packets_per_iteration": 10_000,
        "dedicated_server_step": 0.01,
        "emergequeue_limit_total": 10**6,
        "emergequeue_limit_generate": 10**6,
        "emergequeue_limit_diskonly": 10**6,
        "bind_address": "127.0.0.1",
        "fixed_map_seed": seed,
        "mg_name": "v7",
        "static_spawnpoint": "(0,10000,0)",  # blocks around the player do not disturb the order of generation
        "liquid_update": 10**6,
        "liquid_loop_max": 1,
        "time_speed": 0,
        "world_start_time": 12000,
        "creative_mode": True,
        "enable_damage": False,
        "free_move": True,
        "noclip": True,
        "enable_client_modding": True,
        "csm_restriction_flags": 0,
        "enable_sound": False,
        "enable_shaders": False,
        "enable_clouds": False,
        "enable_particles": False,
        "enable_3d_clouds": False,
        "enable_waving_leaves": False,
        "enable_waving_plants": False,
        "enable_waving_water": False,
        "enable_minimap": False,
        "view_bobbing_amount": 0,
        "fall_bobbing_amount": 0,
        "camera_smoothing": 0,
        "cinematic": False,
        "node_highlighting": "none",
        "opaque_water": True,
        "leaves_style": "opaque",
        "smooth_lighting": True,
        "mip_map": True,
        "transparency_sorting_distance": 0,
        "hud_scaling": 1,
        "display_density_factor": 1,
        "recent_chat_messages": 0,
        "chat_log_level": "none",  # errors of the game's mods would be written over the picture
        "show_debug": False,
        "show_nametag_backgrounds": False,
    }
    return "".join(f"{name} = {str(value).lower()}\n" for name, value in chosen.items())


def _asked_field_of_view(pixels: int) -> float:
    """Degrees to ask for: the game widens them for narrow windows, and the margins are cut away."""
    height = pixels + 2 * MARGIN
    wide = 2 * math.degrees(math.atan(math.tan(math.radians(FIELD_OF_VIEW / 2)) * height / pixels))
    return wide / min(1.4, max(1.0, math.sqrt(1.6 * height / pixels)))

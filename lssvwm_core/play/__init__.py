"""Walking around in a world in real time: game (keys in, frames out) → session (thread, viewers) → web or terminal."""

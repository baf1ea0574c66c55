"""Long memory, measured as in the paper: tasks → results of each episode (npz) → report (JSON, Markdown, pictures)."""

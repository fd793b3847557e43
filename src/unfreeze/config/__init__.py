"""What can be asked for: the study file, its presets and what they resolve to. No torch here."""

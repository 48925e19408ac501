"""Files that exported folders carry along: they run with torch and diffusers alone and import nothing of this package."""

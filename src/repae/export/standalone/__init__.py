"""Files that exported folders carry along: they run with torch and diffusers alone, without this package."""

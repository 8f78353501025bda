"""How far the picture supports a phrase: a number from 0 to 1, of what the other rooms know already (docs/maps.md)."""

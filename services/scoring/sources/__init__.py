"""The formats that the door understands, a module each: bytes in, arrivals or reasons out. Pure."""

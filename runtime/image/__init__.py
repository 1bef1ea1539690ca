"""Images: what containers are made of, kept below `<state>/images`."""

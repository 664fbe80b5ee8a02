"""Images drawn for people: contact sheets and thumbnails."""

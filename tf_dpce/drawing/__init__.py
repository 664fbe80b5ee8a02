"""Images drawn for people: contact sheets."""

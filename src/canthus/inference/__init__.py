"""From pictures to `Faces`: detection, networks, tracking. No torch."""

"""Tables and figures of the five papers: what they print, one TOML file each, beside what given weights do."""

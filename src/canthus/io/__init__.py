"""Files in and out: pictures, videos, results, weights folders, YAML."""

"""The renderers: OpenGL, torch, path tracing."""

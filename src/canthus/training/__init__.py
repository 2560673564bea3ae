"""Training of methods: recipes, schedules, the loop, losses, export."""

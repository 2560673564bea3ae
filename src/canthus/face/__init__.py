"""What is known of faces: landmarks and their schemes, head models, results."""

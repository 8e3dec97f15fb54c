"""A folder with a serving.properties becomes a large-model endpoint."""

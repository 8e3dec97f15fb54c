"""The DJL model server in front: found, told everything, started in this process's place."""

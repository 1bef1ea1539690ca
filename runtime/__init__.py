"""runtime runs: containers by a small supervisor. Not here yet; a lab's containers are namespaces with a process."""

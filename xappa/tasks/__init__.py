"""Tasks: one public function each, which the accessor's methods delegate to."""

// Omitted to save space: the pages load swagger-ui-bundle.js.

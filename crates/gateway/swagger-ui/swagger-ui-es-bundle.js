// Left out: the pages load swagger-ui-bundle.js.

// Starts Swagger UI on the page of the API; a classic script, because Swagger UI's bundle is one.
window.SwaggerUIBundle({
  url: document.getElementById("api").dataset.document,
  domNode: document.getElementById("api"),
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
  queryConfigEnabled: false,
});

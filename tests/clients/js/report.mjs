// What a driver finds out, as JSON on its standard output; the same shape as drivers/report.py.
const { GATEWAY_URL, GATEWAY_KEY, GATEWAY_MODELS, GATEWAY_PROVIDERS } = process.env;
export const url = GATEWAY_URL;
export const key = GATEWAY_KEY;
export const question = "What is the weather in Oslo?";
export const description = "Get the weather of a city.";
export const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
export const weather = ({ city }) => `sunny in ${city}`;

const tried = async (way, model) => {
  try {
    return await way(model);
  } catch (error) {
    return { raised: String(error.stack) };
  }
};

const failure = async (ask, key, model) => {
  try {
    return { kind: "none", text: JSON.stringify(await ask(key, model)) };
  } catch (error) {
    const headers = new Headers(error.headers ?? error.responseHeaders ?? {});
    return {
      kind: error.constructor.name,
      status: error.status ?? error.statusCode,
      retry_after: headers.get("retry-after"),
      text: String(error),
    };
  }
};

// Try each way of asking with each model, then make ask(key, model) fail in all the ways it should.
export const report = async (ways, ask) => {
  const models = GATEWAY_MODELS.split(",");
  const found = {};
  for (const model of models) {
    found[model] = {};
    for (const [name, way] of Object.entries(ways)) found[model][name] = await tried(way, model);
  }
  found.errors = { key: await failure(ask, "hg-nobody", models[0]), model: await failure(ask, key, "nobody") };
  // Models of this run alone: one that was refused with 429 is left alone for a while.
  for (const provider of GATEWAY_PROVIDERS.split(",")) {
    found.errors[`${provider} cut`] = await failure((_, model) => ways.stream(model), key, `${provider}/cut`);
    for (const status of [429, 500, 529])
      found.errors[`${provider} ${status}`] = await failure(ask, key, `${provider}/status-${status}-${process.pid}`);
  }
  console.log(JSON.stringify(found));
};

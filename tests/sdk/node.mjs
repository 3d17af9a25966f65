// The stock SDKs of OpenAI and Anthropic for Node, pointed at the gateway: answers, streams and errors.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

// From the folder that this is started in, and not from where the script is.
const require = createRequire(`${process.cwd()}/`);
const Anthropic = require("@anthropic-ai/sdk");
const OpenAI = require("openai");

const gateway = process.env.GATEWAY;
const openai = new OpenAI({ baseURL: `${gateway}/v1`, apiKey: "any", maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: gateway, apiKey: "any", maxRetries: 0 });
const question = { role: "user", content: "What is a fuse?" };
const said = "Hello! This is claude, simulated. You said: What is a fuse?";
const chat = { model: "claude-3.5-sonnet", messages: [question] };
const message = { ...chat, max_tokens: 100 };

const completion = await openai.chat.completions.create(chat);
assert.equal(completion.choices[0].message.content, said);
assert.equal(completion.usage.completion_tokens, 11);
assert.ok(completion._request_id);

let text = "";
for await (const chunk of await openai.chat.completions.create({ ...chat, stream: true })) {
  text += chunk.choices[0]?.delta.content ?? "";
}
assert.equal(text, said);

await assert.rejects(
  openai.chat.completions.create({ ...chat, model: "gpt-9" }),
  (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
);

const answer = await anthropic.messages.create(message);
assert.equal(answer.content[0].text, said);
const streamed = await anthropic.messages.stream(message).finalMessage();
assert.equal(streamed.content[0].text, said);
assert.equal(streamed.stop_reason, "end_turn");

await assert.rejects(
  anthropic.messages.create({ ...message, model: "gpt-9" }),
  (error) => error instanceof Anthropic.NotFoundError && error.error.error.type === "not_found_error",
);
console.log("node ... ok");

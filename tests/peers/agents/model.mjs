// As model.py, for the Vercel AI SDK: model.mjs URL OTHER.
import { paid_fetch } from '../../../examples/agents/ai-sdk.mjs';
import { generateText, stepCountIs } from '../../../examples/agents/node_modules/ai/dist/index.mjs';
import { MockLanguageModelV3 } from '../../../examples/agents/node_modules/ai/dist/test/index.mjs';

const [url, other] = process.argv.slice(2);
const told = [];
const wish = () => [{ url }, { url, purchase_id: told[0]?.purchase_id }, { url: other, purpose: 'the other' }][told.length];

const model = new MockLanguageModelV3({
  async doGenerate({ prompt }) {
    const results = prompt.filter(message => message.role === 'tool').flatMap(message => message.content);
    told.splice(0, told.length, ...results.map(result => result.output.value));
    const input = wish();
    const content = input
      ? [{ type: 'tool-call', toolCallId: crypto.randomUUID(), toolName: 'paid_fetch', input: JSON.stringify(input) }]
      : [{ type: 'text', text: 'done' }];
    const usage = { inputTokens: {}, outputTokens: {} };
    return { content, usage, finishReason: { unified: input ? 'tool-calls' : 'stop' }, warnings: [] };
  },
});
await generateText({ model, tools: { paid_fetch }, prompt: 'buy it', stopWhen: stepCountIs(5) });
console.log(JSON.stringify({ told, arguments: Object.keys(paid_fetch.inputSchema.shape).sort() }));

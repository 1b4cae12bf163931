/**
 * Prompt formats of families whose checkpoints bring none: their own code builds the prompt. Each says where it was
 * read; none of that code runs here.
 */

/** What a checkpoint says about its family. */
export interface ModelIdentity {
  /** `model_type` of config.json; "" if there is none. */
  modelType: string;
  config: Readonly<Record<string, unknown>>;
  tokenizerConfig: Readonly<Record<string, unknown>>;
  generationConfig: Readonly<Record<string, unknown>>;
}

export interface OriginalFormat {
  /** Jinja, for the variables that transformers gives to chat templates. */
  template: string;
  /** Tokens that end the assistant's turn, beside the end of sequence. */
  turnEnds: readonly string[];
  /** Tokens that the format writes and whose ids it fixes, whatever the vocabulary calls them. */
  tokens: Readonly<Record<string, number>>;
}

/** The format of a family, or undefined if it has none of its own. */
export function findOriginalFormat(identity: ModelIdentity): OriginalFormat | undefined {
  switch (identity.modelType) {
    case "chatglm":
      return isChatGlm3(identity) ? CHATGLM3 : CHATGLM2;
    case "qwen":
      return identity.generationConfig.chat_format === "raw" ? undefined : QWEN;
    case "baichuan":
      return baichuan(identity);
    case "internlm":
      return INTERNLM;
    case "internlm2":
      return INTERNLM2;
    default:
      return undefined;
  }
}

/**
 * ChatGLM2 and 3 share model_type and tokenizer class. Published configurations differ in names, and in the version of
 * transformers that wrote them: 4.27.1 and 4.30.2.
 */
export function isChatGlm3({ config, tokenizerConfig }: ModelIdentity): boolean {
  const names = `${config._name_or_path} ${tokenizerConfig.name_or_path}`;
  if (/chatglm[23]/i.test(names)) return /chatglm3/i.test(names);
  return config.transformers_version !== "4.27.1";
}

/** Refuses a system message; the rounds count from 1. */
const ROUNDS_ONLY = "{{ raise_exception('Only user and assistant messages are supported.') }}";

/** Source: huggingface.co/THUDM/chatglm2-6b, tokenization_chatglm.py (build_prompt, get_prefix_tokens). */
const CHATGLM2: OriginalFormat = {
  template:
    "{{ '[gMASK]sop' }}{% set state = namespace(round=0) %}{% for message in messages %}" +
    "{% if message['role'] == 'user' %}{% set state.round = state.round + 1 %}" +
    "{{ '[Round ' ~ state.round ~ ']\\n\\n问：' ~ message['content'] ~ '\\n\\n答：' }}" +
    "{% elif message['role'] == 'assistant' %}{{ message['content'] ~ '\\n\\n' }}" +
    `{% else %}${ROUNDS_ONLY}{% endif %}{% endfor %}`,
  turnEnds: [],
  tokens: {},
};

/**
 * The space stands for the dummy prefix of the content, which is encoded on its own.
 * Source: huggingface.co/THUDM/chatglm3-6b, tokenization_chatglm.py (build_single_message, build_chat_input);
 * modeling_chatglm.py (chat) for the ends of a turn.
 */
const CHATGLM3: OriginalFormat = {
  template:
    "{{ '[gMASK]sop' }}{% for message in messages %}" +
    "{{ '<|' ~ message['role'] ~ '|>' ~ (message['metadata'] if message['metadata'] is defined else '') ~ '\\n ' }}" +
    "{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
  turnEnds: ["<|user|>", "<|observation|>"],
  tokens: {},
};

/** Source: huggingface.co/Qwen/Qwen-7B-Chat, qwen_generation_utils.py (make_context, get_stop_words_ids). */
const QWEN: OriginalFormat = {
  template:
    "{% if messages[0]['role'] != 'system' %}" +
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}" +
    "{% for message in messages %}" +
    "{{ '<|im_start|>' ~ message['role'] ~ '\\n' ~ message['content'] ~ '<|im_end|>' }}" +
    "{% if not loop.last or add_generation_prompt %}{{ '\\n' }}{% endif %}{% endfor %}" +
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
  turnEnds: ["<|im_end|>", "<|im_start|>"],
  tokens: {},
};

/** The ids that generation_config.json of the chat models gives. */
const BAICHUAN_USER = 195;
const BAICHUAN_ASSISTANT = 196;

/**
 * The roles are single reserved tokens: <reserved_102> and <reserved_103> in the first generation, <reserved_106> and
 * <reserved_107> in the second. Only the first ends the assistant's turns.
 * Source: huggingface.co/baichuan-inc/Baichuan-13B-Chat, modeling_baichuan.py (_build_chat_input), and
 * Baichuan2-13B-Chat, generation_utils.py (build_chat_input); generation_config.json of both.
 */
function baichuan({ config, generationConfig }: ModelIdentity): OriginalFormat {
  const isSecond = config.vocab_size === 125696 || "z_loss_weight" in config;
  const [user, assistant] = isSecond ? ["<reserved_106>", "<reserved_107>"] : ["<reserved_102>", "<reserved_103>"];
  const { user_token_id: userId, assistant_token_id: assistantId } = generationConfig;
  return {
    template:
      "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}" +
      `{% elif message['role'] == 'user' %}{{ '${user}' ~ message['content'] }}` +
      `{% elif message['role'] == 'assistant' %}{{ '${assistant}' ~ message['content']${isSecond ? "" : " ~ eos_token"} }}` +
      "{% else %}{{ raise_exception('Only system, user and assistant messages are supported.') }}{% endif %}{% endfor %}" +
      `{% if add_generation_prompt %}{{ '${assistant}' }}{% endif %}`,
    turnEnds: [],
    tokens: {
      [user as string]: typeof userId === "number" ? userId : BAICHUAN_USER,
      [assistant as string]: typeof assistantId === "number" ? assistantId : BAICHUAN_ASSISTANT,
    },
  };
}

/** Source: huggingface.co/internlm/internlm-chat-7b, modeling_internlm.py (build_inputs, chat). */
const INTERNLM: OriginalFormat = {
  template:
    "{{ bos_token }}{% for message in messages %}" +
    "{% if message['role'] == 'system' %}{{ '<|System|>:' ~ message['content'] ~ '\\n' }}" +
    "{% elif message['role'] == 'user' %}{{ '<|User|>:' ~ message['content'] ~ '\\n' }}" +
    "{% elif message['role'] == 'assistant' %}{{ '<|Bot|>:' ~ message['content'] ~ '<eoa>\\n' }}" +
    "{% else %}{{ raise_exception('Only system, user and assistant messages are supported.') }}{% endif %}{% endfor %}" +
    "{% if add_generation_prompt %}{{ '<|Bot|>:' }}{% endif %}",
  turnEnds: ["<eoa>"],
  tokens: {},
};

/** Source: huggingface.co/internlm/internlm2-chat-7b, modeling_internlm2.py (build_inputs, chat). */
const INTERNLM2: OriginalFormat = {
  template:
    "{{ bos_token }}{% for message in messages %}" +
    "{{ '<|im_start|>' ~ message['role'] ~ '\\n' ~ message['content'] ~ '<|im_end|>\\n' }}{% endfor %}" +
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
  turnEnds: ["<|im_end|>"],
  tokens: {},
};

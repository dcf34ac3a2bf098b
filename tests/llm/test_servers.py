"""Judges in the wild: what servers really say, what it means, and whole small runs against servers that say it."""

import gzip
import json
import re
from typing import Any

import pytest

from fade_lens._util.errors import JudgeError
from fade_lens.judge import Judge, MemoryTranscripts
from fade_lens.llm.chat import Provider, Transient, Unanswered
from fade_lens.llm.endpoint import endpoint
from fade_lens.llm.wire import Refused, Rejected, classify
from fade_lens.llm.words import read_body, room_told, status_in, words_of
from tests.fake_judge import FakeJudge, sentences

CONCEPT = "the word 'cat'"
TEXTS = [f"Text {at} with a {('cat', 'catalog', 'dog')[at % 3]} in it." for at in range(30)]
VALUES = [(2, 1, 0)[at % 3] for at in range(30)]

LENGTH: list[tuple[str, int, Any]] = [
    ("OpenAI", 400, {"error": {"message": "This model's maximum context length is 8192 tokens. However, you requested 8200 tokens (7000 in the messages, 1200 in the completion). Please reduce the length of the messages or completion.", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}),
    ("OpenAI, later", 400, {"error": {"message": "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300011 tokens. Please reduce the length of the messages.", "code": "context_length_exceeded"}}),
    ("OpenAI, window", 400, {"error": {"message": "Your input exceeds the context window of this model. Please adjust your input and try again."}}),
    ("OpenAI, answer", 400, {"error": {"message": "max_tokens is too large: 16000. This model supports at most 4096 completion tokens, whereas you provided 16000.", "param": "max_tokens", "code": "invalid_value"}}),
    ("OpenAI, one string", 400, {"error": {"message": "Invalid 'messages[1].content': string too long. Expected a string with maximum length 1048576, but got a string with length 2000000 instead.", "code": "string_above_max_length"}}),
    ("OpenAI, rate", 429, {"error": {"message": "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 41000. The input or output tokens must be reduced in order to run successfully.", "type": "tokens", "code": "rate_limit_exceeded"}}),
    ("vLLM", 400, {"object": "error", "message": "'max_tokens' or 'max_completion_tokens' is too large: 4000. This model's maximum context length is 2048 tokens and your request has 700 input tokens (4000 > 2048 - 700). None", "type": "BadRequestError", "param": None, "code": 400}),
    ("vLLM, later", 400, {"error": {"message": "This model's maximum context length is 2048 tokens. However, your request has 3000 input tokens. Please reduce the length of the input messages. None", "type": "BadRequestError", "code": 400}}),
    ("vLLM, negative", 400, {"object": "error", "message": "max_tokens must be at least 1, got -186.", "type": "BadRequestError", "param": None, "code": 400}),
    ("vLLM, engine", 500, {"error": {"message": "The decoder prompt (length 3000) is longer than the maximum model length of 2048. Make sure that `max_model_len` is no smaller than the number of text tokens."}}),
    ("TGI", 422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 700 `inputs` tokens and 4000 `max_new_tokens`", "error_type": "validation"}),
    ("TGI, prompt", 422, {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 1168", "error_type": "validation"}),
    ("TGI, answer", 422, {"error": "Input validation error: `max_new_tokens` must be <= 192. Given: 4000", "error_type": "validation"}),
    ("LM Studio", 400, {"error": "Trying to keep the first 6547 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough. Try to load the model with a larger context length, or provide a shorter input"}),
    ("LM Studio, later", 400, '"The number of tokens to keep from the initial prompt is greater than the context length. Try to load the model with a larger context length, or provide a shorter input"'),
    ("LM Studio, in the midst", 200, {"error": "Reached context length of 2048 tokens with model (arch: gpt-oss) that does not currently support mid-generation context overflow."}),
    ("llama.cpp", 400, {"error": {"code": 400, "message": "request (3000 tokens) exceeds the available context size (2048 tokens), try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 3000, "n_ctx": 2048}}),
    ("llama.cpp, batch", 500, {"error": {"code": 500, "message": "input is too large to process. increase the physical batch size", "type": "server_error"}}),
    ("llama-cpp-python", 400, {"error": {"message": "Requested tokens (3000) exceed context window of 2048", "type": "internal_server_error", "param": None, "code": None}}),
    ("Ollama", 400, {"error": {"message": "prompt too long; exceeded max context length by 120 tokens", "type": "api_error", "param": None, "code": None}}),
    ("Gemini", 400, [{"error": {"code": 400, "message": "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).", "status": "INVALID_ARGUMENT"}}]),
    ("Gemini, answer", 400, [{"error": {"code": 400, "message": "Unable to submit request because it has a maxOutputTokens value of 16200 but the supported range is from 1 (inclusive) to 8193 (exclusive). Update the value and try again.", "status": "INVALID_ARGUMENT"}}]),
    ("Together", 422, {"id": "x", "error": {"message": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 8000 `inputs` tokens and 4000 `max_new_tokens`", "type": "invalid_request_error", "param": "max_tokens", "code": None}}),
    ("Fireworks", 400, {"error": {"object": "error", "type": "invalid_request_error", "code": "invalid_request_error", "message": "The prompt is too long: 140000, model maximum context length: 131071"}}),
    ("Groq", 400, {"error": {"message": "Please reduce the length of the messages or completion.", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}),
    ("Groq, free", 413, {"error": {"message": "Request too large for model `llama-3.3-70b-versatile` on tokens per minute (TPM): Limit 6000, Requested 14810, please reduce your message size and try again.", "type": "tokens", "code": "rate_limit_exceeded"}}),
    ("Groq, answer", 400, {"error": {"message": "`max_completion_tokens` must be less than or equal to `16384`, the maximum value for `max_completion_tokens` is less than the `context_window` for this model", "type": "invalid_request_error", "param": "max_completion_tokens"}}),
    ("Mistral", 400, {"object": "error", "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length", "type": "invalid_request_prompt", "param": None, "code": "3051"}),
    ("Anthropic", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 213462 tokens > 200000 maximum"}}),
    ("Anthropic, both", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length or `max_tokens` and try again"}}),
    ("Anthropic, answer", 400, {"error": {"message": "max_tokens: 16000 > 8192, which is the maximum allowed number of output tokens for claude-3-5-sonnet-20241022"}}),
    ("Anthropic, bytes", 413, {"error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}}),
    ("Bedrock", 400, {"message": "Input is too long for requested model."}),
    ("Bedrock, answer", 400, {"detail": "An error occurred (ValidationException) when calling the Converse operation: The maximum tokens you requested exceeds the model limit of 2048. Try again with a maximum tokens value that is lower than 2048."}),
    ("Bedrock, Titan", 400, {"Message": "Too many input tokens. Max input tokens: 8192, request input token count: 9000"}),
    ("DeepSeek", 400, {"error": {"message": "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", "type": "invalid_request_error", "param": None, "code": "invalid_request_error"}}),
    ("DashScope", 400, {"error": {"code": "invalid_parameter_error", "param": None, "message": "Range of input length should be [1, 30720]", "type": "invalid_request_error"}}),
    ("DashScope, answer", 400, {"code": "InvalidParameter", "message": "<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]"}),
    ("OpenRouter", 400, {"error": {"message": "This endpoint's maximum context length is 2048 tokens. However, you requested about 4700 tokens (700 of text input, 4000 in the output). Please reduce the length of either one.", "code": 400}}),
    ("OpenRouter, passed on", 400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": '{"error":{"message":"prompt is too long: 213462 tokens > 200000 maximum"}}', "provider_name": "x"}}}),
    ("OpenRouter, within", 200, {"error": {"message": "Provider returned error", "code": 413, "metadata": {"raw": "too large"}}}),
    ("SGLang", 400, {"object": "error", "message": "The input (3000 tokens) is longer than the model's context length (2048 tokens).", "type": "BadRequestError", "param": None, "code": 400}),
    ("SGLang, both", 400, {"object": "error", "message": "Requested token count exceeds the model's maximum context length of 2048 tokens. You requested a total of 4700 tokens: 700 tokens from the input messages and 4000 tokens for the completion.", "code": 400}),
    ("LiteLLM", 400, {"error": {"message": "litellm.BadRequestError: litellm.ContextWindowExceededError: Hosted_vllmException - too much", "type": None, "param": None, "code": "400"}}),
    ("xAI", 400, {"code": "Client specified an invalid argument", "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens."}),
    ("Copilot", 400, {"error": {"message": "prompt token count of 9000 exceeds the limit of 8192", "code": "model_max_prompt_tokens_exceeded"}}),
    ("MiniMax", 200, {"base_resp": {"status_code": 2013, "status_msg": "invalid params, context window exceeds limit"}}),
    ("Moonshot", 400, {"error": {"type": "invalid_request_error", "message": "Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)"}}),
    ("Cohere", 400, {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292. Try using a shorter prompt, or enable prompt truncating."}),
    ("Cerebras", 400, {"message": "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}),
    ("TensorRT-LLM", 400, {"object": "error", "message": "Prompt length (3000) exceeds maximum input length (2048).", "type": "BadRequestError"}),
    ("TabbyAPI", 400, {"detail": "Prompt length 3000 is greater than max_seq_len 2048"}),
    ("Zhipu", 400, {"error": {"code": "1261", "message": "Prompt 超长"}}),
    ("FastAPI", 422, {"detail": [{"loc": ["body", "max_tokens"], "msg": "Input should be less than or equal to 1024", "type": "less_than_equal", "input": 4000}]}),
    ("Databricks", 400, {"error_code": "BAD_REQUEST", "message": '{"external_model_provider": "x", "external_model_error": {"message": "Input is too long for requested model."}}'}),
    ("SageMaker", 424, {"ErrorCode": "CLIENT_ERROR_FROM_MODEL", "Message": 'Received client error (422) from primary with message "{"error":"Input validation error: `inputs` must have less than 1024 tokens. Given: 1168"}"', "OriginalStatusCode": 422}),
    ("Scaleway", 416, {"message": "max_completion_tokens is limited for this model"}),
    ("Cloudflare", 400, {"errors": [{"message": "AiError: Max output tokens is too high", "code": 3030}], "success": False}),
    ("Qianfan", 200, {"error_code": 336007, "error_msg": "the max input characters is 20000"}),
    ("Zhipu, answer", 400, {"error": {"code": "1210", "message": "API 调用参数有误，max_tokens 参数非法。取值范围 [1, 4095]"}}),
    ("in Japanese", 400, {"error": {"message": "入力トークン数が上限を超えています"}}),
    ("in Korean", 400, {"error": {"message": "입력 토큰 수가 최대 길이를 초과했습니다"}}),
    ("nginx", 413, "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n<center><h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>nginx</center></body></html>"),
    ("events", 200, 'event: error\ndata: {"error": {"message": "context length exceeded"}}\n\ndata: [DONE]\n'),
]  # fmt: skip

OTHERS: list[tuple[str, int, Any, type[Exception], str]] = [
    ("OpenAI, temperature", 400, {"error": {"message": "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is supported.", "param": "temperature", "code": "unsupported_value"}}, Rejected, "temperature"),
    ("OpenAI, limit's name", 400, {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "param": "max_tokens"}}, Rejected, "max_tokens"),
    ("OpenAI, role", 400, {"error": {"message": "Unsupported value: 'messages[0].role' does not support 'system' with this model.", "param": "messages[0].role"}}, Rejected, "system"),
    ("FastAPI, seed", 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 7}]}, Rejected, "body.seed: Extra inputs are not permitted"),
    ("FastAPI, top_logprobs", 422, {"detail": [{"type": "less_than_equal", "loc": ["body", "top_logprobs"], "msg": "Input should be less than or equal to 5", "input": 20}]}, Rejected, "less than or equal to 5"),
    ("OpenAI, top_logprobs", 400, {"error": {"message": "Invalid value for 'top_logprobs': must be less than or equal to 5.", "param": "top_logprobs"}}, Rejected, "5"),
    ("vLLM, logprobs", 400, {"object": "error", "message": "Requested sample logprobs of 20, which is greater than max allowed: 5", "code": 400}, Rejected, "max allowed: 5"),
    ("vLLM, Gemma 2", 400, {"object": "error", "message": "System role not supported", "type": "BadRequestError", "param": None, "code": 400}, Rejected, "System role not supported"),
    ("vLLM, Mistral", 400, {"object": "error", "message": "Conversation roles must alternate user/assistant/user/assistant/...", "code": 400}, Rejected, "alternate"),
    ("llama.cpp, Gemma 2", 500, {"error": {"code": 500, "message": "System role not supported at row 1, column 71", "type": "server_error"}}, Rejected, "System role"),
    ("TGI, Gemma 3", 422, {"error": "Template error: syntax error: Conversation roles must alternate user/assistant", "error_type": "template_error"}, Rejected, "alternate"),
    ("Gemini, Gemma 3", 400, [{"error": {"code": 400, "message": "Developer instruction is not enabled for models/gemma-3-27b-it", "status": "INVALID_ARGUMENT"}}], Rejected, "Developer instruction"),
    ("Gemini, schema", 400, [{"error": {"code": 400, "message": "Invalid JSON payload received. Unknown name \"additionalProperties\" at 'generation_config.response_schema': Cannot find field.", "status": "INVALID_ARGUMENT"}}], Rejected, "additionalProperties"),
    ("LM Studio, format", 400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}, Rejected, "response_format"),
    ("DeepSeek, format", 400, {"error": {"message": "This response_format type is unavailable now", "type": "invalid_request_error"}}, Rejected, "unavailable"),
    ("llama.cpp, grammar", 500, {"error": {"message": "failed to parse grammar", "type": "server_error"}}, Rejected, "grammar"),
    ("OpenRouter, parameters", 404, {"error": {"message": "No endpoints found that can handle the requested parameters.", "code": 404}}, Rejected, "requested parameters"),
    ("Groq, slip", 400, {"error": {"message": "Failed to generate JSON. Please adjust your prompt.", "code": "json_validate_failed", "failed_generation": "{"}}, Transient, "Failed to generate"),
    ("Azure, filter", 400, {"error": {"message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, Refused, "filtered"),
    ("OpenRouter, filter", 403, {"error": {"message": "Your input was flagged by moderation", "code": 403}}, Refused, "flagged"),
    ("OpenAI, quota", 429, {"error": {"message": "You exceeded your current quota, please check your plan.", "code": "insufficient_quota"}}, JudgeError, "quota is used up"),
    ("Anthropic, credit", 400, {"error": {"message": "Your credit balance is too low to access the Anthropic API."}}, JudgeError, "quota is used up"),
    ("OpenRouter, credit", 402, {"error": {"message": "This request requires more credits, or fewer max_tokens. You requested up to 4000 tokens, but can only afford 200.", "code": 402}}, JudgeError, "afford 200"),
    ("Cloudflare, quota", 429, {"errors": [{"message": "you have used up your daily free allocation of 10,000 neurons", "code": 4006}]}, JudgeError, "quota is used up"),
    ("SiliconFlow, quota", 403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}, JudgeError, "quota is used up"),
    ("Zhipu, quota", 429, {"error": {"code": "1113", "message": "您的账户已欠费，请充值后重试。"}}, JudgeError, "quota is used up"),
    ("xAI, quota", 403, {"error": "Your team has either used all available credits or reached its monthly spending limit."}, JudgeError, "quota is used up"),
    ("LiteLLM, quota", 400, {"error": {"message": "Budget has been exceeded! Current cost: 0.5, Max budget: 0.5", "type": "budget_exceeded"}}, JudgeError, "quota is used up"),
    ("Perplexity, quota", 401, {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota"}}, JudgeError, "quota is used up"),
    ("Cohere, trial", 429, {"message": "You are using a Trial key, which is limited to 1000 API calls / month."}, JudgeError, "quota is used up"),
    ("DashScope, quota", 400, {"error": {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."}}, JudgeError, "quota is used up"),
    ("Zhipu, filter", 400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}, Refused, "敏感"),
    ("DashScope, filter", 400, {"error": {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}}, Refused, "inappropriate"),
    ("DeepSeek, filter", 400, {"error": {"message": "Content Exists Risk"}}, Refused, "Risk"),
    ("xAI, filter", 403, {"error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_X"}, Refused, "guidelines"),
    ("Mistral 7B's template", 500, {"error": {"message": "Only user and assistant roles are supported!"}}, Rejected, "Only user"),
    ("a parameter, 501", 501, {"error": "logprobs not implemented"}, Rejected, "logprobs"),
    ("a parameter, 404", 404, {"error": "logprobs must be an integer between 0 and 10"}, Rejected, "between 0 and 10"),
    ("Cerebras, key", 400, {"error": {"message": "Wrong API Key", "code": "wrong_api_key"}}, JudgeError, "does not accept the key"),
    ("Qianfan, key", 200, {"error_code": 110, "error_msg": "Access token invalid or no longer valid"}, JudgeError, "does not accept the key"),
    ("Zhipu, model", 400, {"error": {"code": "1211", "message": "模型不存在，请检查模型代码。"}}, JudgeError, "check the model's name"),
    ("Cloudflare, busy", 429, {"errors": [{"message": "Capacity temporarily exceeded, please try again.", "code": 3040}]}, Transient, "Capacity"),
    ("SageMaker, busy", 424, {"ErrorCode": "INTERNAL_FAILURE_FROM_MODEL", "Message": "Received server error (0) from primary"}, Transient, "server error"),
    ("Databricks, rates", 429, {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "Exceeded workspace input tokens per minute rate limit for x."}, Transient, "per minute"),
    ("Gemini, key", 400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}}], JudgeError, "does not accept the key"),
    ("a proxy's key", 401, "Unauthorized", JudgeError, "Unauthorized"),
    ("Mistral, model", 400, {"object": "error", "message": "Invalid model: mistral-hugs", "type": "invalid_model", "code": "1500"}, JudgeError, "check the model's name"),
    ("Ollama, model", 404, {"error": {"message": "model 'llama9' not found", "type": "api_error"}}, JudgeError, "llama9"),
    ("a path", 404, '{"detail":"Not Found"}', JudgeError, "Not Found"),
    ("Cloudflare", 502, "<!DOCTYPE html><html><head><title>502: Bad gateway</title><style>p {color: red}</style></head><body><p>Host error</p></body></html>", Transient, "502: Bad gateway Host error"),
    ("a proxy", 503, "upstream connect error or disconnect/reset before headers", Transient, "upstream connect error"),
    ("Anthropic, busy", 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, Transient, "Overloaded"),
    ("OpenRouter, busy", 200, {"error": {"message": "Rate limit exceeded: free-models-per-min", "code": 429}}, Transient, "HTTP 429: Rate limit"),
    ("a gateway, busy", 200, {"error": "model is loading"}, Transient, "model is loading"),
    ("a web page", 200, "<html><head><title>Sign in</title></head></html>", Transient, "(a web page) Sign in"),
    ("rates", 429, {"error": {"message": "Rate limit reached for tokens per min (TPM): Limit 30000, Used 29000, Requested 4000. Please try again in 6s."}}, Transient, "Rate limit"),
    ("nothing", 500, "", Transient, "HTTP 500: no words"),
]  # fmt: skip


def met(status: int, body: Any) -> Exception:
    raw = (body if isinstance(body, str) else json.dumps(body)).encode()
    said = read_body(raw)
    status = status_in(said) or status if status == 200 else status
    return classify(status, {}, said, "no words", Provider("m", endpoint("http://h/v1", None)))


@pytest.mark.parametrize(("status", "body"), [pytest.param(*case[1:], id=case[0]) for case in LENGTH])
def test_a_refusal_for_length_is_known_in_any_words(status: int, body: Any) -> None:
    found = met(status, body)
    assert isinstance(found, Unanswered) and found.too_long, found
    assert str(found).startswith("too long for the judge: ") and "no words" not in str(found)


@pytest.mark.parametrize(("status", "body", "kind", "shown"), [pytest.param(*case[1:], id=case[0]) for case in OTHERS])
def test_other_refusals_are_known_and_shown(status: int, body: Any, kind: type[Exception], shown: str) -> None:
    found = met(status, body)
    assert type(found) is kind and shown in str(found), found


ROOM = {
    "OpenAI": (1192, False),
    "OpenAI, answer": (4096, True),
    "vLLM": (1348, False),
    "vLLM, later": (0, False),
    "vLLM, negative": (0, False),
    "TGI": (1348, False),
    "TGI, answer": (192, True),
    "LM Studio": (0, False),
    "llama.cpp": (0, False),
    "Gemini": (0, False),
    "Gemini, answer": (8193, True),
    "Anthropic, both": (10000, False),
    "Anthropic, answer": (8192, True),
    "Bedrock, answer": (2048, True),
    "DeepSeek": (8192, True),
    "DashScope, answer": (8192, True),
    "OpenRouter": (1348, False),
    "SGLang, both": (1348, False),
    "Groq": (None, False),
    "FastAPI": (1024, True),
}


@pytest.mark.parametrize("server", ROOM)
def test_the_numbers_of_a_refusal_tell_what_room_is_left(server: str) -> None:
    said = words_of({name: body for name, _, body in LENGTH}[server]).text
    asked = next(
        (n for n in (1200, 16000, 16200, 20000, 4000) if str(n) in said), 700 if ROOM[server][0] == 0 else 16000
    )
    prompt = {"OpenAI": 6500, "Anthropic, both": 150_000, "Gemini": 900_000}.get(
        server, 600 if ROOM[server][0] else 2600
    )
    assert room_told(said, asked, prompt) == ROOM[server]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'"just a string"', "just a string"),
        (b'["one", {"message": "two"}]', "one; two"),
        (b"\xef\xbb\xbf{\"errors\": [{\"message\": \"a\"}, {\"message\": \"a\"}]}", "a"),
        (gzip.compress(b'{"error": {"message": "packed"}}', mtime=0), "packed"),
        (gzip.compress(b"x" * 100, mtime=0)[:20], None),
        ("{\"error\": \"Schlüssel\"}".encode("latin-1"), "Schl\ufffdssel"),
        (b"data: {\"error\": {\"message\": \"in a stream\"}}\n\ndata: [DONE]", "in a stream"),
        (b'{"unheard": {"of": "words"}, "n": 3}', "words"),
        (b'{"error": {"message": "short", "request": {"messages": ["my own words"]}}}', "short"),
        (b'{"error": {"message": {"detail": [{"msg": "deep"}]}}}', "deep"),
        (b'{"error": "{\\"error\\": {\\"message\\": \\"twice\\"}}"}', "twice"),
        (b"[" * 100_000, None),
        (b"", ""),
        (b"null", "null"),
        (b"\x00\xff\xfe", None),
    ],
)  # fmt: skip
def test_words_are_found_in_bodies_of_any_form(raw: bytes, text: str | None) -> None:
    said = words_of(read_body(raw)).text
    assert text is None or said == text
    assert len(said) <= 4000


# ------------------------------------------------------------------------------------------- whole runs: length

LONG = [f"{text} {'And so it goes on and on. ' * 15}" for text in TEXTS]
"""About 400 characters each: a batch of 15 has 6,000."""


def many(concept: str, variation: int) -> list[str]:
    return [f"{sentence} {part}" for sentence in sentences(concept, variation) for part in "abc"]


class Small:
    """What a server with `context` tokens replies to requests that are too long for it, tokens being three characters."""

    def __init__(self, words: Any, context: int = 2048) -> None:
        self.words, self.context, self.refused = words, context, 0

    def __call__(self, body: dict[str, Any]) -> tuple[int, Any] | None:
        used = sum(len(message["content"]) for message in body["messages"]) // 3
        limit = body.get("max_tokens", 0)
        if used + limit <= self.context:
            return None
        self.refused += 1
        return self.words(used, limit, self.context)


def blank(finish: str = "length", **message: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 2047, "completion_tokens": 1}
    return {"choices": [{"message": {"content": "", **message}, "finish_reason": finish}], "usage": usage}


SMALL: dict[str, Any] = {
    "vLLM": lambda used, limit, most: (400, {"message": f"'max_tokens' is too large: {limit}. This model's maximum context length is {most} tokens and your request has {used} input tokens ({limit} > {most} - {used})."}),
    "TGI": lambda used, limit, most: (422, {"error": f"`inputs` tokens + `max_new_tokens` must be <= {most}. Given: {used} `inputs` tokens and {limit} `max_new_tokens`"}),
    "without numbers": lambda used, limit, most: (400, '"the request exceeds the available context size"'),
    "unheard of": lambda used, limit, most: (400, "Das war dem Rechner zu viel."),
    "without words": lambda used, limit, most: (413, b""),
    "within an answer": lambda used, limit, most: (200, {"error": {"message": f"too many tokens: {used + limit} of {most}"}}),
    "by nothing": lambda used, limit, most: (200, blank()) if used >= most - 200 else (400, "context window"),
}  # fmt: skip


@pytest.mark.parametrize("words", SMALL)
def test_a_small_context_rates_every_text_and_writes_all_texts(words: str) -> None:
    small = Small(SMALL[words])
    with FakeJudge(writer=many, reply=small) as fake, Judge("m", base_url=fake.base_url, concurrency=4) as judge:
        judge.check()
        written = judge.write(CONCEPT)
        assert len(written.texts) == 30 and not written.failures
        assert [rating.value for rating in judge.rate(CONCEPT, LONG)] == VALUES
        before = small.refused
        assert before < 30
        assert len(judge.write("the word 'dog'").texts) == 30
        assert [rating.value for rating in judge.rate("the word 'dog'", LONG)] == [
            (0, 0, 2)[at % 3] for at in range(30)
        ]
        assert small.refused - before <= 2, "what was learnt is kept"
        assert all(body.get("max_tokens", 1) > 0 for body in fake.bodies)


def test_a_text_too_long_for_a_context_is_lost_alone() -> None:
    with FakeJudge(reply=Small(SMALL["vLLM"], context=900)) as fake, Judge("m", base_url=fake.base_url) as judge:
        ratings = judge.rate(CONCEPT, [*TEXTS[:2], "cat " * 900])
        assert ratings[2].value is None and "maximum context length is 900" in str(ratings[2].reason)
        assert len(judge.write(CONCEPT).texts) == 30


def test_what_is_refused_and_asked_for_in_parts_is_found_again_by_the_next_run() -> None:
    kept, answered = MemoryTranscripts(), 0
    with FakeJudge(writer=many, reply=(small := Small(SMALL["vLLM"]))) as fake:
        for _ in range(2):
            with Judge("m", base_url=fake.base_url) as judge, judge.session(kept):
                judge.write(CONCEPT)
                judge.rate(CONCEPT, LONG)
                answered = fake.requests - small.refused
        assert judge.usage.calls == 0 and answered == len(kept)


def test_a_limit_on_answers_is_kept_to() -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any] | None:
        said = "Invalid max_tokens value, the valid range of max_tokens is [1, 1024]"
        return (400, {"error": {"message": said}}) if body["max_tokens"] > 1024 else None

    with FakeJudge(writer=many, reply=reply) as fake, Judge("m", base_url=fake.base_url) as judge:
        assert len(judge.write(CONCEPT).texts) == 30
        assert [body["max_tokens"] for body in fake.bodies][-1] == 1024 and fake.requests <= 5


# ----------------------------------------------------------------------------------- whole runs: what is not taken


def readable_by(fake: FakeJudge, body: dict[str, Any]) -> dict[str, Any]:
    """The completion for a body whose system message was put into the user's."""
    *_, user = body["messages"]
    at = user["content"].index('<description id="')
    return fake.completion({**body, "messages": [{"role": "user", "content": user["content"][at:]}]}, "ok")


def takes(**limits: Any) -> tuple[list[FakeJudge], Any]:
    """A server's replies to what it does not take, in words or (`silent`) without."""
    served: list[FakeJudge] = []

    def reply(body: dict[str, Any]) -> tuple[int, Any] | None:
        schema = json.dumps(body.get("response_format", {}))
        found = ""
        if "system" in limits and any(message["role"] == "system" for message in body["messages"]):
            found = limits["system"]
        elif "schema" in limits and re.search(limits["schema"][0], schema):
            found = limits["schema"][1]
        else:
            found = next((limits[name][1] for name in limits if name in body and limits[name][0](body[name])), "")
        if found:
            return (500, {"error": found}) if found == "System role not supported" else (400, {"detail": found})
        merged = body["messages"][0]["role"] == "user"
        return (200, readable_by(served[0], body)) if merged else None

    return served, reply


@pytest.mark.parametrize(
    "limits",
    [
        {"system": "System role not supported"},
        {"system": "Conversation roles must alternate user/assistant/user/assistant/..."},
        {"system": "?"},
        {"schema": ("additionalProperties", 'Unknown name "additionalProperties" at response_schema')},
        {"schema": ("enum", "Unsupported JSON schema fields: {'enum'}")},
        {"schema": ("json_schema", "response_format.type: must be 'json_object'")},
        {"schema": ("type", "?"), "system": "no"},
        {"seed": (lambda _: True, [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}])},
        {"temperature": (lambda value: value != 1, "temperature: only 1 is allowed for this model")},
        {"temperature": (lambda value: value <= 0, "`temperature` must be strictly positive")},
        {"temperature": (lambda _: True, "?"), "seed": (lambda _: True, "?")},
        {"max_tokens": (lambda _: True, "Use max_completion_tokens instead: max_tokens is unknown")},
    ],
)
def test_what_a_server_cannot_take_is_left_out_once_and_changes_no_key(limits: dict[str, Any]) -> None:
    kept = MemoryTranscripts()
    served, reply = takes(**limits)
    with FakeJudge(reply=reply) as fake:
        served.append(fake)
        with Judge("m", base_url=fake.base_url) as judge, judge.session(kept):
            judge.check()
            written = judge.write(CONCEPT, n_texts=10)
            judge.rate("the word 'dog'", TEXTS)
            before = fake.requests
            assert [rating.value for rating in judge.rate(CONCEPT, TEXTS)] == VALUES
            assert len(written.texts) == 10 and fake.requests == before + 2
        fake.reply = None
        with Judge("m", base_url=fake.base_url) as judge, judge.session(kept):
            judge.rate(CONCEPT, TEXTS)
            judge.write(CONCEPT, n_texts=10)
            assert judge.usage.calls == 0, "how it was asked is no part of the key"


@pytest.mark.parametrize(
    ("said", "most"),
    [
        ("Invalid value for 'top_logprobs': must be less than or equal to 5.", 5),
        ("top_logprobs should be in [0, 8]", 8),
        ("Requested sample logprobs of 20, which is greater than max allowed: 10", 10),
        ("top_logprobs is too high", 5),
    ],
)
def test_fewer_alternatives_are_asked_for_where_a_server_gives_no_twenty(said: str, most: int) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any] | None:
        return (400, {"error": {"message": said}}) if body.get("top_logprobs", 0) > most else None

    with FakeJudge(reply=reply) as fake, Judge("m", base_url=fake.base_url, rating="single") as judge:
        judge.check()
        assert [rating.value for rating in judge.rate(CONCEPT, TEXTS[:6])] == VALUES[:6]
        assert [body["top_logprobs"] for body in fake.bodies if "logprobs" in body][:3] == [20, most, most]


def test_a_server_that_knows_no_logprobs_is_told_as_such() -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any] | None:
        return (
            (400, {"error": {"message": "'logprobs' is not supported with this model"}}) if "logprobs" in body else None
        )

    with (
        FakeJudge(reply=reply, logprobs=False) as fake,
        Judge("m", base_url=fake.base_url, rating="single") as judge,
        pytest.raises(JudgeError, match="gives no log-probabilities"),
    ):
        judge.check()


@pytest.mark.parametrize("content", ["\n" * 400, '{"ratings": [' + " \n" * 300, ""])
def test_a_grammar_under_which_white_space_is_written_is_dropped(content: str) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any] | None:
        if "response_format" not in body:
            return None
        usage = {"prompt_tokens": 50, "completion_tokens": 400}
        return 200, {"choices": [{"message": {"content": content}, "finish_reason": "length"}], "usage": usage}

    with FakeJudge(reply=reply) as fake, Judge("m", base_url=fake.base_url, concurrency=1) as judge:
        assert [rating.value for rating in judge.rate(CONCEPT, TEXTS)] == VALUES
        assert ["response_format" in body for body in fake.bodies] == [True, False, False]
        assert judge.usage.calls == 3 and judge.usage.completion_tokens == 420, "what came to nothing is paid for, too"


# ------------------------------------------------------------------------------------- whole runs: where the answer is


def in_parts(content: str) -> dict[str, Any]:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Maybe all are 2."}]}
    return {"content": [thought, {"type": "text", "text": content[:9]}, {"type": "text", "text": content[9:]}]}


PLACES: dict[str, Any] = {
    "parts": in_parts,
    "a field beside": lambda content: {"content": content, "reasoning_content": '{"ratings": []}'},
    "all in the field": lambda content: {"content": None, "reasoning_content": content},
    "after the field's end tag": lambda content: {"content": "", "reasoning": f"Hm. {{}}</think>\n{content}"},
    "channels": lambda content: {"content": f'<|channel|>analysis<|message|>[{{"id": 1}}]<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>{content}<|return|>'},
    "channels without signs": lambda content: {"content": f'analysisWe need [{{"a": 2}}] maybe.assistantfinal{content}'},
    "answer tags": lambda content: {"content": f"<think>x</think>\n<answer>\n{content}\n</answer>"},
    "other tags": lambda content: {"content": f"<seed:think>{{}}</seed:think>{content}"},
    "brackets": lambda content: {"content": f"[THINK]{{}}[/THINK]{content}"},
    "a draft": lambda content: {"content": f"Draft: {content.replace('2', '0')}\n\n**Final answer:**\n```json\n{content}\n```"},
    "curly": lambda content: {"content": re.sub(r'"(\w*)"', r"“\1”", content)},
    "full width": lambda content: {"content": content.translate(str.maketrans("{}[]:,012", "｛｝［］：，０１２")).replace('"', "＂")},
    "angled": lambda content: {"content": re.sub(r'"(\w*)"', r"「\1」", content)},
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_ratings_are_found_where_the_answer_is(place: str) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        completion = fake.completion(body, "ok")
        message = completion["choices"][0]["message"]
        message |= PLACES[place](message["content"])
        return 200, completion

    with FakeJudge(reply=reply) as fake, Judge("m", base_url=fake.base_url) as judge:
        assert [rating.value for rating in judge.rate(CONCEPT, TEXTS)] == VALUES
        assert fake.requests == 2


def test_a_stream_of_events_sent_unasked_is_put_together() -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        content = fake.completion(body, "ok")["choices"][0]["message"]["content"]
        deltas = [{"role": "assistant"}, *({"content": part} for part in re.findall(r".{1,7}", content))]
        events = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
        events += [
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 5}},
        ]
        return 200, "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"

    with FakeJudge(reply=reply) as fake, Judge("m", base_url=fake.base_url) as judge:
        assert [rating.value for rating in judge.rate(CONCEPT, TEXTS)] == VALUES
        assert judge.usage.prompt_tokens == 10


def test_a_packed_answer_is_read_and_a_monstrous_one_is_not() -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, gzip.compress(json.dumps(fake.completion(body, "ok")).encode())

    with FakeJudge(reply=reply) as fake, Judge("m", base_url=fake.base_url) as judge:
        assert [rating.value for rating in judge.rate(CONCEPT, TEXTS)] == VALUES
    with (
        FakeJudge(reply=lambda _: (200, b" " * (33 << 20))) as fake,
        Judge("m", base_url=fake.base_url, max_retries=0) as judge,
        pytest.raises(JudgeError, match="32 MiB"),
    ):
        judge.check()


IDEAS = (
    'I could write: {"texts": ["Idea one of a cat.", "Idea two of a cat."]} or\n1. A cat.\n2. My cat.\nBetter think on'
)


@pytest.mark.parametrize(
    ("message", "finish"),
    [
        ({"content": f"<think>{IDEAS}"}, "length"),
        ({"content": f"<|channel|>analysis<|message|>{IDEAS}"}, "length"),
        ({"content": f"analysis{IDEAS}"}, "length"),
        ({"content": f"[THINK]{IDEAS}"}, "length"),
        ({"content": f"◁think▷{IDEAS}◁/think▷"}, "stop"),
        ({"content": f"<thought>{IDEAS}</thought>"}, "stop"),
        ({"content": None, "reasoning_content": IDEAS}, "length"),
        ({"content": "", "reasoning": IDEAS}, "stop"),
        ({"content": "", "thinking": '["Idea one of a cat."]'}, "stop"),
        ({"content": [{"type": "thinking", "thinking": IDEAS}]}, "length"),
        ({"content": [{"type": "reasoning", "text": IDEAS}]}, "stop"),
        ({"content": f"Okay, let me see. {IDEAS}"}, "length"),
    ],
)
def test_ideas_in_a_thought_are_never_taken_and_the_reason_says_where_the_words_went(
    message: dict[str, Any], finish: str
) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 4000}
    reply = (200, {"choices": [{"message": message, "finish_reason": finish}], "usage": usage})
    with FakeJudge(reply=lambda _: reply) as fake, Judge("m", base_url=fake.base_url) as judge:
        written = judge.write(CONCEPT, n_texts=5)
        assert written.texts == [] and "4,000 tokens" in written.failures[0]
        assert ("reasoning" in written.failures[0]) == ("let me see" not in str(message))
        assert [rating.value for rating in judge.rate("cats", ["1", "2"])] == [None, None]


@pytest.mark.parametrize("rating", ["batched", "single"])
def test_a_text_that_a_server_rejects_in_words_that_nobody_knows_is_lost_alone(rating: str) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any] | None:
        return (400, {"error": "Nein."}) if "Nein" in body["messages"][-1]["content"] else None

    texts = [*TEXTS[:13], "Nein, a cat.", *TEXTS[13:]]
    with FakeJudge(reply=reply) as fake, Judge("m", base_url=fake.base_url, rating=rating) as judge:
        judge.check(writes=False)
        ratings = judge.rate(CONCEPT, texts)
        assert [r.value is None for r in ratings] == [text.startswith("Nein") for text in texts]
        assert "Nein" in str(ratings[13].reason) and len(fake.bodies[-1]["messages"]) == len(fake.bodies[0]["messages"])


def test_a_server_that_begins_to_reject_everything_stops_the_run() -> None:
    with FakeJudge() as fake, Judge("m", base_url=fake.base_url) as judge:
        judge.check()
        fake.reply = lambda _: (400, {"error": "Nein."})
        with pytest.raises(JudgeError, match="rejects the request: Nein"):
            for number in range(20):
                assert not any(rating.value for rating in judge.rate(f"the word '{number}'", TEXTS))
        assert fake.requests < 150

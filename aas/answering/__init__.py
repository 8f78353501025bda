"""Answers of a server that speaks OpenAI's protocol: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`."""

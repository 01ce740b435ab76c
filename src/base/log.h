/* The log: one JSON object a line on stdout (oz-api.md 13), or plain text. Only app, face and main
 * write to it (c-style.md 1.4). The level and the format are the one global of the program. Any
 * thread. */
#ifndef MU_BASE_LOG_H
#define MU_BASE_LOG_H

#include "base/bytes.h"
#include "base/env.h"

enum mu_log_level { MU_LOG_DEBUG, MU_LOG_INFO, MU_LOG_WARN, MU_LOG_ERROR };

/* At start, and again on reload. `text` = human-readable instead of JSON. fd 1 unless told
 * otherwise. */
void mu_log_setup(const struct mu_env *env, enum mu_log_level level, bool text);
void mu_log_fd(int fd);
bool mu_log_on(enum mu_log_level level);

/* One field. Make them with the macros below; keys are snake_case literals. */
struct mu_kv {
    const char *key;
    enum { MU_KV_BYTES, MU_KV_I64, MU_KV_BOOL, MU_KV_JSON } kind;
    int64_t i;
    mu_bytes b;
};
#define MU_KS(k, v) ((struct mu_kv){.key = (k), .kind = MU_KV_BYTES, .b = (v)}) /* mu_bytes */
#define MU_KC(k, v)                                                                                \
    ((struct mu_kv){.key = (k), .kind = MU_KV_BYTES, .b = mu_str(v)}) /* C string                  \
                                                                       */
#define MU_KI(k, v) ((struct mu_kv){.key = (k), .kind = MU_KV_I64, .i = (v)})
#define MU_KT(k, v) ((struct mu_kv){.key = (k), .kind = MU_KV_BOOL, .i = (v)})
#define MU_KJ(k, v)                                                                                \
    ((struct mu_kv){.key = (k), .kind = MU_KV_JSON, .b = (v)}) /* JSON text as it is */

/* mu_log(MU_LOG_INFO, "agent_run.create", MU_KS("run_id", id), MU_KI("prompt_length", n)); values
 * are escaped, invalid UTF-8 replaced, lines longer than 16 KiB cut in the value that is too long.
 * Never pass tokens, prompts or variable values. */
#define mu_log(level, msg, ...)                                                                    \
    do {                                                                                           \
        if (mu_log_on(level)) {                                                                    \
            const struct mu_kv mu_kv_[] = {__VA_ARGS__};                                           \
            mu_log_write(level, msg, mu_kv_, sizeof mu_kv_ / sizeof(struct mu_kv));                \
        }                                                                                          \
    } while (0)
void mu_log_write(enum mu_log_level level, const char *msg, const struct mu_kv *kv, size_t n);

#endif

/* The HTTP client of the commands: blocking, on libcurl. */
#ifndef MU_MAIN_CLIENT_H
#define MU_MAIN_CLIENT_H

#include <curl/curl.h>

#include "main/cmd.h"
#include "proto/json.h"

struct mu_client {
    CURL *curl;
    char *base; /* with /api/v1, without a trailing slash */
    char *key;
    bool json; /* --json */
    struct mu_arena arena;
};

struct mu_reply {
    int status;
    mu_bytes body;    /* in the client's arena */
    yyjson_val *root; /* NULL when the body is no JSON */
};

/* Finds server and key, and says on stderr what is missing. 0 or an exit code. */
MU_MUST_USE int mu_client_open(const struct mu_cli *cli, struct mu_client *ret);
void mu_client_close(struct mu_client *c);

struct mu_request {
    const char *method; /* GET POST PUT DELETE */
    mu_bytes path;      /* below /api/v1, escaped, with its query */
    mu_bytes body;      /* JSON, or empty */
    const char *idempotency_key;
    int64_t timeout_ms; /* 0 = 60 s */
    bool quiet;         /* say nothing about an error */
};
/* 0 for a 2xx; else an exit code after saying why. What can be repeated unharmed is, when the
 * server asks for it (429, 503). */
MU_MUST_USE int mu_client_call(struct mu_client *c, const struct mu_request *req,
                               struct mu_reply *ret);
/* "<prefix>/<id>[<suffix>]" with the id escaped; exits are for the caller: ptr NULL when out of
 * memory. */
mu_bytes mu_client_path(struct mu_client *c, const char *prefix, const char *id,
                        const char *suffix);
/* A whole command: gets `path` ("<path>/<id>" with an id, which is escaped), and prints the answer
 * as it came (--json) or by `print`. The exit code. */
int mu_client_show(const struct mu_cli *cli, const char *path, const char *id,
                   void (*print)(yyjson_val *root));
/* A whole command: the same call "<path>/<id><suffix>" for each argument, all of them; says "<id>
 * <done>" on success. The first failure decides the exit code. */
int mu_client_each(const struct mu_cli *cli, const char *method, const char *path,
                   const char *suffix, const char *done);
/* A member of a request's body, if the flag was given. */
void mu_client_option(struct mu_json_w *w, const struct mu_cli *cli, const char *flag,
                      const char *key);
/* Prints a body as it came, ended by a newline. */
void mu_client_print(const struct mu_reply *r);
/* The words and the exit code for an answer that is no 2xx, or for a failed transfer. */
int mu_client_refused(struct mu_client *c, const struct mu_reply *r);
int mu_client_no_server(struct mu_client *c, CURLcode code);
int mu_client_no_memory(void);
/* Options that every transfer has. The list is freed by the caller. -1 when out of memory. */
MU_MUST_USE int mu_client_prepare(struct mu_client *c, mu_bytes path, struct curl_slist **headers);

/* --- following a run (follow.c) --- */

struct mu_follow {
    const char *id;
    bool events;   /* print each event as a JSON line */
    bool progress; /* a status line on stderr */
};
/* Streams the run's events until it ends: text to stdout. *ret_state (at least 16 bytes) is its
 * final state. 0 or an exit code; the first Ctrl-C detaches, a second one cancels the run. */
MU_MUST_USE int mu_client_follow(struct mu_client *c, const struct mu_follow *f, char *ret_state,
                                 size_t size);
/* Waits with the long poll. MU_EXIT_TIMEOUT when `seconds` are over (< 0: never). The last answer
 * in *ret; everything else that was in the client's arena is gone. */
MU_MUST_USE int mu_client_wait(struct mu_client *c, const char *id, int64_t seconds,
                               struct mu_reply *ret);
bool mu_state_ended(mu_bytes state);
/* 0 for SUCCEEDED, 1 otherwise. */
int mu_state_exit(mu_bytes state);
/* Prints a run's text on stdout and its error on stderr. */
void mu_print_outcome(yyjson_val *run);

#endif

#include "main/client.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "main/config.h"
#include "main/ui.h"
#include "proto/url.h"

enum { MAX_REPLY = 80 * 1024 * 1024, MAX_ARENA = 512 * 1024 * 1024, TRIES = 3 };

extern char **environ;

int mu_client_no_memory(void)
{
    fputs("muster: out of memory\n", stderr);
    return MU_EXIT_FAILED;
}

/* --- where the server is --- */

static void read_small(const char *dir, const char *name, char *dst, size_t size)
{
    char path[4300];
    dst[0] = 0;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path) {
        return;
    }
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, dst, size - 1);
    mu_bytes text = mu_bytes_trim(mu_bytes_of(dst, n > 0 ? (size_t)n : 0));
    memmove(dst, text.ptr, text.len);
    dst[text.len] = 0;
}

/* What the running server wrote down about itself. The key of the data folder goes only there: on
 * the default port, anybody might listen while our server does not run. */
static const char *local_url(struct mu_client *c, const char *dir)
{
    const struct mu_json_limits limits = {.max_bytes = 4096, .max_depth = 4};
    char text[4096];
    yyjson_val *root;
    read_small(dir, "server.json", text, sizeof text);
    if (!text[0] || mu_json_read(&c->arena, mu_str(text), &limits, &root, NULL) < 0) {
        return NULL;
    }
    int64_t pid = mu_json_get_i64(root, "pid", 0);
    if (pid > 0 && kill((pid_t)pid, 0) < 0 && errno == ESRCH) {
        return NULL;
    }
    mu_bytes url = mu_json_get_bytes(root, "url");
    return url.len ? mu_arena_dup(&c->arena, url).ptr : NULL;
}

/* "http://host:8080" and "http://host:8080/api/v1/" are the same server. */
static int set_base(struct mu_client *c, const char *url)
{
    struct mu_url parts;
    struct mu_err err;
    mu_bytes text = mu_str(url);
    if (mu_url_parse(text, &parts, &err) < 0) {
        fprintf(stderr, "muster: the server's URL %s: %s\n", url, err.text);
        return MU_EXIT_USAGE;
    }
    while (text.len && text.ptr[text.len - 1] == '/') {
        text.len--;
    }
    bool bare = parts.path.len <= 1;
    char *base = NULL;
    if (asprintf(&base, "%.*s%s", MU_ARGS(text), bare ? "/api/v1" : "") < 0) {
        return mu_client_no_memory();
    }
    free(c->base);
    c->base = base;
    return 0;
}

static const char *nonblank(const char *name)
{
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

static int find_server(const struct mu_cli *cli, struct mu_client *c)
{
    char dir[4096], key[512];
    const char *asked = mu_cli_value(cli, "url"), *data = nonblank("OZ_DATA_DIR");
    asked = asked ? asked : nonblank("OZ_API_BASE_URL");
    if (data) {
        snprintf(dir, sizeof dir, "%s", data);
    } else {
        mu_config_default_data_dir((const char *const *)environ, geteuid() == 0, dir, sizeof dir);
    }
    const char *local = local_url(c, dir);
    if (!asked && !local) {
        fprintf(stderr,
                "muster: no server runs for the data folder %s.\n"
                "Start one with `muster serve`, or name one with OZ_API_BASE_URL and "
                "OZ_API_KEY.\n",
                dir);
        return MU_EXIT_NO_SERVER;
    }
    int r = local ? set_base(c, local) : 0;
    MU_AUTO_FREE char *local_base = r == 0 && local ? strdup(c->base) : NULL;
    r = r == 0 && asked ? set_base(c, asked) : r;
    if (r) {
        return r;
    }
    bool ours = local_base && !strcmp(c->base, local_base);
    const char *found = nonblank("OZ_API_KEY");
    found = found ? found : nonblank("WARP_API_KEY");
    if (!found && ours) {
        read_small(dir, "admin.key", key, sizeof key);
        found = key[0] ? key : nonblank("OZ_ADMIN_API_KEY");
    }
    if (!found) {
        fprintf(stderr, "muster: no key for %s: set OZ_API_KEY.\n", c->base);
        return MU_EXIT_NOT_ALLOWED;
    }
    c->key = strdup(found);
    return c->key ? 0 : mu_client_no_memory();
}

int mu_client_open(const struct mu_cli *cli, struct mu_client *ret)
{
    memset(ret, 0, sizeof *ret);
    mu_arena_init(&ret->arena, MAX_ARENA);
    ret->json = mu_cli_has(cli, "json");
    int r = find_server(cli, ret);
    if (r == 0) {
        curl_global_init(CURL_GLOBAL_DEFAULT);
        ret->curl = curl_easy_init();
        r = ret->curl ? 0 : mu_client_no_memory();
    }
    if (r) {
        mu_client_close(ret);
    }
    return r;
}

void mu_client_close(struct mu_client *c)
{
    if (c->curl) {
        curl_easy_cleanup(c->curl);
        c->curl = NULL;
    }
    free(c->base);
    free(c->key);
    c->base = c->key = NULL;
    mu_arena_fini(&c->arena);
}

/* --- one call --- */

static size_t on_body(char *data, size_t one, size_t n, void *arg)
{
    struct mu_buf *b = arg;
    mu_buf_add(b, mu_bytes_of(data, one * n));
    return b->failed ? 0 : one * n;
}

static int add_header(struct curl_slist **list, const char *name, const char *value)
{
    char line[1024];
    if ((size_t)snprintf(line, sizeof line, "%s: %s", name, value) >= sizeof line) {
        return -1;
    }
    struct curl_slist *grown = curl_slist_append(*list, line);
    if (!grown) {
        return -1;
    }
    *list = grown;
    return 0;
}

int mu_client_prepare(struct mu_client *c, mu_bytes path, struct curl_slist **headers)
{
    mu_bytes url = mu_arena_printf(&c->arena, "%s%.*s", c->base, MU_ARGS(path));
    mu_bytes auth = mu_arena_printf(&c->arena, "Bearer %s", c->key);
    const char *ca = nonblank("SSL_CERT_FILE");
    if (!path.ptr || !url.ptr || !auth.ptr || add_header(headers, "Authorization", auth.ptr) < 0) {
        return -1;
    }
    curl_easy_reset(c->curl);
    curl_easy_setopt(c->curl, CURLOPT_URL, url.ptr);
    curl_easy_setopt(c->curl, CURLOPT_USERAGENT, "muster-cli/" MU_VERSION);
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT_MS, 5000L);
    if (ca) {
        curl_easy_setopt(c->curl, CURLOPT_CAINFO, ca);
    }
    return 0;
}

static int set_request(struct mu_client *c, const struct mu_request *req, struct mu_buf *body,
                       struct curl_slist **headers)
{
    if (mu_client_prepare(c, req->path, headers) < 0 ||
        (req->idempotency_key &&
         add_header(headers, "Idempotency-Key", req->idempotency_key) < 0) ||
        add_header(headers, "Accept", "application/json") < 0 ||
        (req->body.len && add_header(headers, "Content-Type", "application/json") < 0) ||
        add_header(headers, "Expect", "") < 0) {
        return -1;
    }
    if (strcmp(req->method, "GET") != 0) {
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, req->body.ptr ? req->body.ptr : "");
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body.len);
        curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, req->method);
    }
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, *headers);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, body);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT_MS,
                     (long)(req->timeout_ms ? req->timeout_ms : 60000));
    return 0;
}

int mu_client_no_server(struct mu_client *c, CURLcode code)
{
    fprintf(stderr, "muster: %s: %s\n", c->base, curl_easy_strerror(code));
    return MU_EXIT_NO_SERVER;
}

static int exit_of(int status)
{
    switch (status) {
    case 401:
    case 403:
        return MU_EXIT_NOT_ALLOWED;
    case 404:
        return MU_EXIT_NOT_FOUND;
    case 429:
    case 502:
    case 503:
    case 504:
        return MU_EXIT_NO_SERVER;
    default:
        return status >= 400 && status < 500 ? MU_EXIT_USAGE : MU_EXIT_FAILED;
    }
}

/* What the sessions API found wrong, one line each. */
static void print_issues(yyjson_val *issues)
{
    size_t i, max;
    yyjson_val *issue;
    yyjson_arr_foreach(issues, i, max, issue)
    {
        struct mu_buf b;
        mu_buf_init(&b, 4096);
        mu_ui_clean(&b, mu_bytes_head(mu_json_get_bytes(issue, "message"), 1000), false);
        fprintf(stderr, "  %.*s\n", MU_ARGS(mu_buf_bytes(&b)));
        mu_buf_fini(&b);
    }
}

int mu_client_refused(struct mu_client *c, const struct mu_reply *r)
{
    struct mu_buf b;
    yyjson_val *error = mu_json_get(r->root, "error"); /* an object in the sessions API */
    mu_bytes words = mu_json_get_bytes(r->root, "message");
    mu_bytes id = mu_json_get_bytes(r->root, "request_id");
    words = words.len ? words : mu_json_get_bytes(error, "message");
    words = words.len ? words : mu_json_bytes(error);
    id = id.len ? id : mu_json_get_bytes(mu_json_get(r->root, "meta"), "requestId");
    mu_buf_init(&b, 4096);
    mu_ui_clean(&b, mu_bytes_head(words.len ? words : MU_B("no explanation"), 1000), false);
    mu_buf_add_char(&b, 0);
    fprintf(stderr, "muster: %s (%d%s%.*s)\n", b.failed ? "refused" : b.ptr, r->status,
            id.len ? ", " : "", MU_ARGS(id));
    mu_buf_fini(&b);
    print_issues(mu_json_get(mu_json_get(error, "details"), "issues"));
    if (r->status == 401) {
        fprintf(stderr, "The key is not known to %s: set OZ_API_KEY.\n", c->base);
    }
    return exit_of(r->status);
}

static int perform(struct mu_client *c, const struct mu_request *req, struct mu_reply *ret,
                   CURLcode *ret_code)
{
    const struct mu_json_limits limits = {.max_bytes = MAX_REPLY, .max_depth = 64};
    struct curl_slist *headers = NULL;
    struct mu_buf body;
    long status = 0;
    mu_buf_init(&body, MAX_REPLY);
    int r = set_request(c, req, &body, &headers);
    if (r == 0) {
        *ret_code = curl_easy_perform(c->curl);
        curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
        ret->status = (int)status;
        ret->body = mu_arena_dup(&c->arena, mu_buf_bytes(&body));
        ret->root = NULL;
        r = ret->body.ptr ? 0 : -1;
        if (r == 0 && mu_json_read(&c->arena, ret->body, &limits, &ret->root, NULL) < 0) {
            ret->root = NULL;
        }
    }
    curl_slist_free_all(headers);
    mu_buf_fini(&body);
    return r;
}

static bool repeatable(const struct mu_request *req)
{
    return strcmp(req->method, "POST") != 0 || req->idempotency_key;
}

int mu_client_call(struct mu_client *c, const struct mu_request *req, struct mu_reply *ret)
{
    for (int tries = 1;; tries++) {
        CURLcode code = CURLE_OK;
        curl_off_t after = 0;
        memset(ret, 0, sizeof *ret);
        if (perform(c, req, ret, &code) < 0) {
            return mu_client_no_memory();
        }
        if (code != CURLE_OK) {
            if (code == CURLE_OPERATION_TIMEDOUT && req->quiet) {
                return MU_EXIT_TIMEOUT;
            }
            return req->quiet ? MU_EXIT_NO_SERVER : mu_client_no_server(c, code);
        }
        if (ret->status >= 200 && ret->status < 300) {
            return 0;
        }
        curl_easy_getinfo(c->curl, CURLINFO_RETRY_AFTER, &after);
        bool asked = (ret->status == 429 || ret->status == 503) && after > 0 && after <= 10;
        if (!asked || !repeatable(req) || tries == TRIES) {
            return req->quiet ? exit_of(ret->status) : mu_client_refused(c, ret);
        }
        struct timespec pause = {.tv_sec = (time_t)after};
        nanosleep(&pause, NULL);
    }
}

mu_bytes mu_client_path(struct mu_client *c, const char *prefix, const char *id, const char *suffix)
{
    struct mu_buf b;
    mu_buf_init(&b, 4096);
    mu_buf_printf(&b, "%s/", prefix);
    mu_url_encode(&b, mu_str(id));
    mu_buf_add_str(&b, suffix);
    mu_bytes path = b.failed ? MU_B_NONE : mu_arena_dup(&c->arena, mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return path;
}

int mu_client_show(const struct mu_cli *cli, const char *path, const char *id,
                   void (*print)(yyjson_val *root))
{
    struct mu_client c;
    struct mu_reply reply;
    int r = mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    const struct mu_request req = {.method = "GET",
                                   .path = id ? mu_client_path(&c, path, id, "") : mu_str(path)};
    r = mu_client_call(&c, &req, &reply);
    if (r == 0 && c.json) {
        mu_client_print(&reply);
    } else if (r == 0) {
        print(reply.root);
    }
    mu_client_close(&c);
    return r;
}

int mu_client_each(const struct mu_cli *cli, const char *method, const char *path,
                   const char *suffix, const char *done)
{
    struct mu_client c;
    int first = mu_client_open(cli, &c);
    if (first) {
        return first;
    }
    for (size_t i = 0; i < cli->n_args; i++) {
        struct mu_reply reply;
        const struct mu_request req = {.method = method,
                                       .path = mu_client_path(&c, path, cli->args[i], suffix)};
        int r = mu_client_call(&c, &req, &reply);
        if (r == 0 && c.json && reply.body.len) {
            mu_client_print(&reply);
        } else if (r == 0 && !c.json) {
            printf("%s %s\n", cli->args[i], done);
        }
        first = first ? first : r;
    }
    mu_client_close(&c);
    return first;
}

void mu_client_option(struct mu_json_w *w, const struct mu_cli *cli, const char *flag,
                      const char *key)
{
    const char *v = mu_cli_value(cli, flag);
    if (v) {
        mu_jw_kcstr(w, key, v);
    }
}

void mu_client_print(const struct mu_reply *r)
{
    fwrite(r->body.ptr, 1, r->body.len, stdout);
    putchar('\n');
}

/* What the runner reads from outside: variables as JSON and lines, lists of repositories, an HTTP
 * answer. */
#include "base/encode.h"
#include "runner/envvars.h"
#include "runner/http.h"
#include "runner/repos.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int take(void *arg, mu_bytes name, mu_bytes value)
{
    (void)arg;
    MU_CHECK(name.len > 0 && !memchr(name.ptr, '=', name.len) && !memchr(name.ptr, 0, name.len));
    MU_CHECK(value.ptr != NULL);
    return 0;
}

static int take_text(void *arg, mu_bytes name, mu_bytes value)
{
    MU_CHECK(!memchr(value.ptr, 0, value.len) && mu_utf8_valid(value));
    return take(arg, name, value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = mu_bytes_of((const char *)data, size);
    struct mu_err err;
    (void)!mu_envvars_json(in, take_text, NULL, &err);
    if (!memchr(data, 0, size)) { /* an environment holds no NUL */
        (void)!mu_envvars_lines(in, take, NULL);
    }
    struct mu_repos repos;
    if (mu_repos_parse(in, &repos, &err) == 0) {
        for (size_t i = 0; i < repos.n; i++) {
            const char *name = repos.items[i].name;
            MU_CHECK(*name && *name != '-' && !strchr(name, '/') && strcmp(name, "..") != 0);
            MU_CHECK(repos.items[i].url[0] != '-');
        }
        mu_repos_fini(&repos);
    }
    struct mu_http_answer answer;
    struct mu_buf body;
    mu_buf_init(&body, 1 << 16);
    (void)!mu_http_answer_parse(in, size % 2, &answer, &body);
    mu_buf_fini(&body);
    struct mu_http_url url;
    (void)!mu_http_url_parse(in, &url);
    return 0;
}

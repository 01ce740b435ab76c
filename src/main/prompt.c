#include "main/prompt.h"

#include <errno.h>
#include <fcntl.h>

#include "base/encode.h"
#include "base/err.h"

int mu_read_file(const struct mu_cli *cli, const char *file, struct mu_buf *dst)
{
    bool standard = !strcmp(file, "-");
    MU_AUTO_CLOSE int fd = standard ? dup(0) : open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return mu_usage(cli->cmd, "cannot open %s: %s", file, mu_err_text(-errno));
    }
    for (;;) {
        char *room = mu_buf_room(dst, 65536);
        ssize_t n = room ? read(fd, room, 65536) : -1;
        if (n == 0) {
            return 0;
        }
        if (n < 0 && room && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return mu_usage(cli->cmd, "cannot read %s: %s", file,
                            mu_err_text(room ? -errno : dst->failed));
        }
        dst->len += (size_t)n;
    }
}

int mu_prompt_of(const struct mu_cli *cli, size_t first, const char *file, struct mu_buf *dst)
{
    for (size_t i = first; i < cli->n_args; i++) {
        mu_buf_printf(dst, "%s%s", i > first ? " " : "", cli->args[i]);
    }
    if (file) {
        mu_buf_add_str(dst, dst->len ? "\n\n" : "");
        int r = mu_read_file(cli, file, dst);
        if (r) {
            return r;
        }
    }
    if (dst->failed || dst->len > MU_PROMPT_MAX) {
        return mu_usage(cli->cmd, "the prompt is longer than %d bytes", MU_PROMPT_MAX);
    }
    if (mu_bytes_trim(mu_buf_bytes(dst)).len == 0) {
        return mu_usage(cli->cmd, "the prompt is missing: muster %s%s%s \"fix the tests\"",
                        cli->cmd->name, cli->cmd->sub ? " " : "",
                        cli->cmd->sub ? cli->cmd->sub : "");
    }
    if (!mu_utf8_valid(mu_buf_bytes(dst)) || mu_bytes_find_char(mu_buf_bytes(dst), 0) >= 0) {
        return mu_usage(cli->cmd, "the prompt is not UTF-8 text");
    }
    return 0;
}

int mu_prompt_args(const struct mu_cli *cli, size_t first, struct mu_buf *dst)
{
    bool standard = cli->n_args == first + 1 && !strcmp(cli->args[first], "-");
    return mu_prompt_of(cli, standard ? cli->n_args : first, standard ? "-" : NULL, dst);
}

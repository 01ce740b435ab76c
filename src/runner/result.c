#include "runner/result.h"

void mu_result_add(struct mu_buf *dst, const struct mu_result *r)
{
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_ki64(&w, "exit_code", r->exit_code);
    mu_jw_kcstr(&w, "phase", r->phase);
    mu_jw_kstr_opt(&w, "output_path", mu_str(r->output_path));
    mu_jw_ki64(&w, "duration_ms", r->duration_ms);
    mu_jw_kstr_opt(&w, "message", r->message[0] ? mu_str(r->message) : MU_B_NONE);
    mu_jw_kbool(&w, "output_truncated", r->output_truncated);
    mu_jw_key(&w, "artifacts");
    mu_jw_arr(&w);
    for (size_t i = 0; i < r->n_prs; i++) {
        mu_pull_request_write(&w, r->prs[i], mu_str(r->pr_branch), r->created_ms);
    }
    mu_jw_arr_end(&w);
    mu_jw_kstr_opt(&w, "session_link", r->session_link.len ? r->session_link : MU_B_NONE);
    mu_jw_key(&w, "files");
    mu_jw_arr(&w);
    for (size_t i = 0; i < r->n_files; i++) {
        mu_jw_obj(&w);
        mu_jw_kcstr(&w, "path", r->files[i].path);
        mu_jw_kcstr(&w, "name", r->files[i].name);
        mu_jw_kcstr(&w, "media_type", r->files[i].media_type);
        mu_jw_ki64(&w, "bytes", r->files[i].bytes);
        mu_jw_obj_end(&w);
    }
    mu_jw_arr_end(&w);
}

void mu_result_fini(struct mu_result *r)
{
    for (size_t i = 0; i < r->n_files; i++) {
        mu_result_file_fini(&r->files[i]);
    }
    r->n_files = 0;
    mu_free(r->pr_branch);
    r->pr_branch = NULL;
}

/* GET /orgs/me (ours): what a bare token cannot know otherwise, its own org. */
#include <errno.h>

#include "face/sessions/sessions_int.h"

static void own_org(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    const struct mu_sess_face *f = mu_sess_face(c);
    struct mu_json_w w = mu_call_data(c);
    MU_CHECK(p); /* the route's auth says so, but gcc does not know it */
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "orgId", p->org_id);
    mu_jw_kcstr(&w, "role", mu_sess_role(p->role));
    mu_jw_key(&w, "limits");
    mu_jw_obj(&w);
    mu_jw_ki64(&w, "maxSessionsPerOrg", f->max_sessions_per_org);
    mu_jw_ki64(&w, "defaultTimeoutMinutes", f->default_timeout_min);
    mu_jw_ki64(&w, "maxTimeoutMinutes", f->max_timeout_min);
    mu_jw_ki64(&w, "maxQueueMinutes", f->max_queue_min);
    mu_jw_ki64(&w, "approvalTimeoutMinutes", f->approval_timeout_min);
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
    mu_call_data_send(c, 200, NULL, 0);
}

const struct mu_route mu_sess_org_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/orgs/me",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .handler = own_org,
     .id = "getOwnOrg",
     .summary = "The caller's org, role and limits (ours).",
     .response = "OwnOrg"},
    {.path = NULL}};

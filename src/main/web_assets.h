/* The web app's files, made by the build (cmake/web_assets.py); none when web/dist was not there.
 */
#ifndef MU_MAIN_WEB_ASSETS_H
#define MU_MAIN_WEB_ASSETS_H

#include "face/web/web.h"

extern const struct mu_web_assets mu_embedded_assets;

#endif

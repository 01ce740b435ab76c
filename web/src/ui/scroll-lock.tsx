import { type ElementType, type ReactNode, type RefObject, useLayoutEffect } from "react";

// Takes the place of react-remove-scroll (vite.config.ts): the page behind a dialog does not scroll. Set through the
// style attribute's object, which style-src 'self' allows; a <style> element would be refused.
let locks = 0;
let before = "";

export function RemoveScroll({
  as: Inner,
  children,
  enabled = true,
}: {
  as?: ElementType;
  children?: ReactNode;
  enabled?: boolean;
  allowPinchZoom?: boolean;
  shards?: RefObject<unknown>[];
}) {
  useLayoutEffect(() => {
    if (!enabled) return;
    const root = document.documentElement;
    if (locks++ === 0) {
      before = root.style.overflow;
      root.style.overflow = "hidden";
    }
    return () => {
      if (--locks === 0) root.style.overflow = before;
    };
  }, [enabled]);
  return Inner ? <Inner>{children}</Inner> : <>{children}</>;
}

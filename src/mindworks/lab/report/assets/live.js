// Only served by `mindworks report --watch`: the page loads itself again when its content on the server changes.
"use strict";

{
  const address = `/.version?path=${encodeURIComponent(location.pathname)}`;
  let known = null;
  const look = async () => {
    try {
      const answer = await fetch(address, { cache: "no-store" });
      const version = answer.ok ? await answer.text() : known;
      if (known !== null && version !== known) location.reload();
      known = version;
    } catch {
      // the server is gone; it may come back
    }
    setTimeout(look, 1000);
  };
  look();
}

import { createRoot } from "react-dom/client";

import { App } from "../../../../docs/examples/react_agent.jsx";

createRoot(document.getElementById("root")).render(<App />);

Rails.application.routes.draw do
  root "pages#show"
  resources :orders, only: %i[create destroy]

  namespace :api do
    namespace :v1 do
      defaults format: :json do
        resources :orders, only: %i[index create show destroy]
        resources :trades, only: :index
        resources :quotes, only: :create
      end
    end
  end

  get "whoami", to: "wire#whoami"
  get "pieces", to: "wire#pieces"
  get "export", to: "wire#export"
  get "statement", to: "wire#statement"
  post "uploads", to: "wire#upload"
  get "events", to: "events#index"
  post "events/next", to: "steps#create"
  post "broadcasts", to: "broadcasts#create"
end
